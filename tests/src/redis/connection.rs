//! One connection to a redis server.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A server that does not answer for so long is treated as gone. Well above any downtime to be
/// measured, and low enough that a client comes back soon.
const PATIENCE: Duration = Duration::from_millis(1000);

#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Said(String),
    Value(Vec<u8>),
    Nothing,
}

impl Connection {
    pub fn open(address: &str) -> Result<Self> {
        Self::open_patient(address, PATIENCE)
    }

    /// Waits so long for every answer.
    pub fn open_patient(address: &str, patience: Duration) -> Result<Self> {
        let address = address.to_socket_addrs()?.next().context("an address")?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.send(&encode(&[b"SET", key.as_bytes(), value]))?;
        self.expect_ok()
    }

    pub fn get(&mut self, key: &str) -> Result<Answer> {
        self.send(&encode(&[b"GET", key.as_bytes()]))?;
        self.answer()
    }

    /// Many commands before the first answer: filling hundreds of MiB one by one takes minutes.
    pub fn pipeline<'a>(
        &mut self,
        commands: impl Iterator<Item = (String, &'a [u8])>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        let mut count = 0;
        for (key, value) in commands {
            bytes.extend(encode(&[b"SET", key.as_bytes(), value]));
            count += 1;
        }
        self.send(&bytes)?;
        (0..count).try_for_each(|_| self.expect_ok())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes).context("send to redis")
    }

    fn expect_ok(&mut self) -> Result<()> {
        match self.answer()? {
            Answer::Said(said) if said == "OK" => Ok(()),
            other => bail!("redis answered {other:?} to SET"),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        decode(&mut self.stream)
    }
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn decode(stream: &mut impl BufRead) -> Result<Answer> {
    let mut line = String::new();
    stream.read_line(&mut line).context("wait for redis' answer")?;
    let Some(line) = line.strip_suffix("\r\n") else { bail!("redis closed the connection") };
    match line.split_at_checked(1) {
        Some(("+", said)) => Ok(Answer::Said(said.into())),
        Some(("$", "-1")) => Ok(Answer::Nothing),
        Some(("$", length)) => {
            let mut value = vec![0; length.parse::<usize>()? + 2];
            stream.read_exact(&mut value)?;
            value.truncate(value.len() - 2);
            Ok(Answer::Value(value))
        }
        _ => bail!("redis says {line:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        assert_eq!(encode(&[b"GET", b"ab"]), b"*2\r\n$3\r\nGET\r\n$2\r\nab\r\n");
    }

    #[test]
    fn answers_are_read_to_their_end() {
        let mut stream: &[u8] = b"+OK\r\n$-1\r\n$4\r\na\r\nb\r\n-ERR no\r\n";
        assert_eq!(decode(&mut stream).unwrap(), Answer::Said("OK".into()));
        assert_eq!(decode(&mut stream).unwrap(), Answer::Nothing);
        assert_eq!(decode(&mut stream).unwrap(), Answer::Value(b"a\r\nb".into()));
        assert!(decode(&mut stream).unwrap_err().to_string().contains("ERR no"));
        assert!(decode(&mut stream).is_err());
    }
}
