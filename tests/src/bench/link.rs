//! What the link between two hosts carries without any of us: plain TCP. It is the floor that a move is
//! held against, and what takes a peer's images to the other host.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// As much as one system call takes.
const CHUNK_BYTES: usize = 1 << 20;

/// Takes one connection, reads it to its end, and says so with one byte.
pub fn sink(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut chunk = vec![0; CHUNK_BYTES];
    while stream.read(&mut chunk)? > 0 {}
    Ok(stream.write_all(&[1])?)
}

/// Sends so many MiB to a [`sink`]. Returns when all of them were read.
pub fn flood(address: &str, mib: usize) -> Result<Duration> {
    let mut stream = TcpStream::connect(address).context("connect to the sink")?;
    let chunk = vec![7; CHUNK_BYTES];
    let began = Instant::now();
    (0..mib).try_for_each(|_| stream.write_all(&chunk))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(began.elapsed())
}

/// Takes one connection, and sends back whatever comes.
pub fn echo(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// How long one byte takes to an [`echo`] and back, so many times.
pub fn ping(address: &str, count: usize) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).context("connect to the echo")?;
    stream.set_nodelay(true)?;
    let mut once = || {
        let began = Instant::now();
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        Ok(began.elapsed())
    };
    (0..count).map(|_| once()).collect()
}

#[derive(Serialize, Deserialize)]
struct Listed {
    name: String,
    bytes: u64,
}

/// Sends the files of a directory to [`receive_files`], without their bytes passing through this process:
/// sendfile(2). Returns when all of them are there.
pub fn send_files(directory: &Path, address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).context("connect to who takes the files")?;
    let listed = list(directory)?;
    let mut head = serde_json::to_vec(&listed)?;
    head.push(b'\n');
    stream.write_all(&head)?;
    for file in &listed {
        let mut from = File::open(directory.join(&file.name))?;
        let sent =
            io::copy(&mut from, &mut stream).with_context(|| format!("send {}", file.name))?;
        ensure!(sent == file.bytes, "{} has changed meanwhile", file.name);
    }
    stream.read_exact(&mut [0]).context("hear that all is there")
}

fn list(directory: &Path) -> Result<Vec<Listed>> {
    let listed = |entry: io::Result<fs::DirEntry>| {
        let (entry, what) = (entry?, "a name that is text");
        let name = entry.file_name().into_string().ok().context(what)?;
        Ok(Listed { name, bytes: entry.metadata()?.len() })
    };
    fs::read_dir(directory)?.map(listed).collect()
}

/// Takes one connection, and makes the files that come in a directory.
pub fn receive_files(directory: &Path, listener: &TcpListener) -> Result<()> {
    fs::create_dir_all(directory)?;
    let (stream, _) = listener.accept()?;
    let mut stream = BufReader::with_capacity(CHUNK_BYTES, stream);
    let mut head = String::new();
    stream.read_line(&mut head)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    for Listed { name, bytes } in serde_json::from_str::<Vec<Listed>>(&head)? {
        ensure!(!name.contains('/'), "{name:?} leads out of the directory");
        let mut file = File::create(directory.join(&name))?;
        receive(&mut stream, &mut file, bytes, &mut chunk)
            .with_context(|| format!("take {name}"))?;
    }
    Ok(stream.get_mut().write_all(&[1])?)
}

fn receive(
    from: &mut impl Read,
    into: &mut impl Write,
    bytes: u64,
    chunk: &mut [u8],
) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let length = from.read(&mut chunk[..most])?;
        if length == 0 {
            bail!("the stream ended {left} bytes early");
        }
        into.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[test]
    fn files_arrive_as_they_were() {
        let [from, into] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let big: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        for (name, bytes) in [("big", big.as_slice()), ("empty", b""), ("small", b"abc")] {
            fs::write(from.path().join(name), bytes).unwrap();
        }
        let (listener, address) = local();
        std::thread::scope(|scope| {
            scope.spawn(|| receive_files(into.path(), &listener).unwrap());
            send_files(from.path(), &address).unwrap();
        });
        assert_eq!(fs::read(into.path().join("big")).unwrap(), big);
        assert_eq!(fs::read(into.path().join("empty")).unwrap(), b"");
        assert_eq!(fs::read(into.path().join("small")).unwrap(), b"abc");
    }

    #[test]
    fn a_stream_that_ends_early_is_no_file() {
        let mut chunk = [0; 16];
        let error = receive(&mut &b"abc"[..], &mut Vec::new(), 5, &mut chunk).unwrap_err();
        assert!(error.to_string().contains("2 bytes early"));
    }

    #[test]
    fn a_flood_and_a_ping_come_to_an_end() {
        let (listener, address) = local();
        std::thread::scope(|scope| {
            scope.spawn(|| sink(&listener).unwrap());
            assert!(flood(&address, 3).unwrap() > Duration::ZERO);
        });
        std::thread::scope(|scope| {
            scope.spawn(|| echo(&listener).unwrap());
            assert_eq!(ping(&address, 10).unwrap().len(), 10);
        });
    }
}
