//! The server's side: what moves.

use super::Pattern;
use super::client::Direction;
use super::pattern::PIECE;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Serves whoever comes, until the process ends.
pub fn serve(listener: &TcpListener) -> Result<()> {
    loop {
        let (connection, peer) = listener.accept().context("accept a client")?;
        thread::spawn(move || {
            if let Err(error) = one(connection).with_context(|| format!("serve {peer}")) {
                // The test looks at what the server said on standard error.
                eprintln!("{error:#}");
            }
        });
    }
}

/// The client's first byte says what it is after.
fn one(mut connection: TcpStream) -> Result<()> {
    let mut wish = [0];
    connection.read_exact(&mut wish).context("hear what is wanted")?;
    match Direction::of_wish(wish[0]).context("no such wish")? {
        Direction::Download => give(connection),
        Direction::Upload => take(connection),
    }
}

/// Sends until the client closes its side, then how much that was.
fn give(mut connection: TcpStream) -> Result<()> {
    let (mut pattern, is_over) = (Pattern::new(), AtomicBool::new(false));
    let client = connection.try_clone()?;
    thread::scope(|scope| {
        let end = scope.spawn(|| wait_for_end(client, &is_over));
        while !is_over.load(Ordering::Relaxed) {
            let sent = connection.write(pattern.next_piece()).context("send")?;
            pattern.advance(sent);
        }
        end.join().ok().context("a thread panicked")??;
        connection.write_all(&pattern.position().to_le_bytes()).context("send the last bytes")
    })
}

fn wait_for_end(mut client: TcpStream, is_over: &AtomicBool) -> Result<()> {
    let said = client.read(&mut [0]).context("wait for the client's end");
    is_over.store(true, Ordering::Relaxed);
    ensure!(said? == 0, "the client speaks again");
    Ok(())
}

/// Takes everything in until the client closes its side, then says how much that was.
fn take(mut connection: TcpStream) -> Result<()> {
    let (mut pattern, mut buffer) = (Pattern::new(), vec![0; PIECE]);
    loop {
        let length = connection.read(&mut buffer).context("receive")?;
        if length == 0 {
            break;
        }
        pattern.check(&buffer[..length])?;
    }
    connection.write_all(&pattern.position().to_le_bytes()).context("say how much has come")?;
    Ok(connection.shutdown(Shutdown::Write)?)
}
