//! Pages kept in memory while a tree stands still, so that no disk is waited for.

use super::writer::Writer;
use crate::error::{Error, Object, OnObject as _};
use crate::memory::PageSink;
use std::io;

/// What comes last goes into memory, up to a bound; then straight into the writer.
#[derive(Debug)]
pub struct Buffer<'a> {
    writer: &'a mut Writer,
    records: Vec<Record>,
    bytes_left: u64,
}

#[derive(Debug)]
enum Record {
    Data(u32, u64, Box<[u8]>),
    Zero(u32, u64, u64),
    Dropped(u32, u64, u64),
}

impl<'a> Buffer<'a> {
    pub fn new(writer: &'a mut Writer, bytes_max: u64) -> Self {
        Self { writer, records: Vec::new(), bytes_left: bytes_max }
    }

    /// Writes what was kept.
    pub fn flush(mut self) -> Result<(), Error> {
        self.write().on("keep the pages of", || Object::Host)
    }

    fn write(&mut self) -> io::Result<()> {
        for record in self.records.drain(..) {
            match record {
                Record::Data(space, address, bytes) => self.writer.data(space, address, &bytes)?,
                Record::Zero(space, address, pages) => self.writer.zero(space, address, pages)?,
                Record::Dropped(space, address, pages) => {
                    self.writer.dropped(space, address, pages)?;
                }
            }
        }
        Ok(())
    }

    /// What comes later about a page has to come after what came before.
    fn keep(&mut self, record: Record) -> io::Result<()> {
        self.records.push(record);
        match self.bytes_left {
            0 => self.write(),
            _ => Ok(()),
        }
    }
}

impl PageSink for Buffer<'_> {
    fn data(&mut self, space: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes_left = self.bytes_left.saturating_sub(bytes.len() as u64);
        self.keep(Record::Data(space, address, bytes.into()))
    }

    fn zero(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.keep(Record::Zero(space, address, pages))
    }

    fn dropped(&mut self, space: u32, address: u64, pages: u64) -> io::Result<()> {
        self.keep(Record::Dropped(space, address, pages))
    }
}
