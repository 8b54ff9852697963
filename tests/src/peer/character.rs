//! What a fake says of itself, and where it stops being polite.

use anyhow::Result;
use clap::Args;
use protocol::message::Message;
use protocol::version::Hello;
use std::path::PathBuf;

/// This host's own introduction, but for what is named here.
#[derive(Args, Clone, Debug)]
pub struct Character {
    /// The versions of the conversation that it speaks, from MIN to MAX.
    #[arg(long, num_args = 2, value_names = ["MIN", "MAX"])]
    pub protocol: Option<Vec<u32>>,
    /// A CPU feature that it lacks.
    #[arg(long)]
    pub without_feature: Vec<String>,
    /// The components of CPU state that it saves, in the place of its own.
    #[arg(long)]
    pub xsave_features: Option<u64>,
    /// A kind of object that it does not know.
    #[arg(long)]
    pub without_kind: Vec<String>,
    /// Ends without a word when it hears this message, as if it were killed.
    #[arg(long, value_name = "MESSAGE")]
    pub dies_at: Option<String>,
    /// Does not answer this message until the file of `--until` exists.
    #[arg(long, value_name = "MESSAGE", requires = "until")]
    pub waits_at: Option<String>,
    #[arg(long, value_name = "FILE")]
    pub until: Option<PathBuf>,
}

impl Character {
    pub fn hello(&self) -> Result<Hello> {
        let mut hello = dest_agent::hello::hello()?;
        if let Some(&[min, max]) = self.protocol.as_deref() {
            (hello.protocol_min, hello.protocol_max) = (min, max);
        }
        hello.host.cpu_features.retain(|name| !self.without_feature.contains(name));
        hello.kinds.retain(|kind| !self.without_kind.contains(&kind.name));
        hello.host.xsave_features = self.xsave_features.unwrap_or(hello.host.xsave_features);
        Ok(hello)
    }

    pub(super) fn dies_at(&self, message: &Message) -> bool {
        self.dies_at.as_deref() == Some(message.name())
    }

    /// The file that the answer to this message waits for.
    pub(super) fn gate(&self, message: &Message) -> Option<&PathBuf> {
        let is_held = self.waits_at.as_deref() == Some(message.name());
        self.until.as_ref().filter(|_| is_held)
    }
}
