//! The operator's answers for what leads out of the tree.

use clap::{Args, ValueEnum};
use engine::kinds::{OutsidePipe, OutsideUnix, Rules, Tcp, Terminal};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
pub(crate) struct RuleOptions {
    /// TCP connections: they go on, or stand against the move, or the program sees them closed; with
    /// `reset` their peers do so as well
    #[arg(long, value_enum, default_value_t = TcpRule::Established)]
    tcp: TcpRule,
    /// A terminal: its descriptors lead to /dev/null afterwards, or it stands against the move
    #[arg(long, value_enum, default_value_t = TerminalRule::Detach)]
    terminal: TerminalRule,
    /// A pipe to or from a process outside: it leads to /dev/null, or stands against the move
    #[arg(long, value_enum, default_value_t = PipeRule::Null)]
    outside_pipe: PipeRule,
    /// A unix socket connected to a process outside: it is connected again to the same name on the
    /// destination, it is closed, or it stands against the move. `auto` connects datagram sockets
    /// again, to the log for example, and refuses all others
    #[arg(long, value_enum, default_value_t = UnixRule::Auto)]
    unix: UnixRule,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize, Deserialize)]
enum TcpRule {
    Established,
    Refuse,
    Close,
    Reset,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize, Deserialize)]
enum TerminalRule {
    Detach,
    Refuse,
}

#[derive(Clone, Copy, Debug, ValueEnum, Serialize, Deserialize)]
enum PipeRule {
    Null,
    Refuse,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum, Serialize, Deserialize)]
enum UnixRule {
    #[default]
    Auto,
    Reconnect,
    Close,
    Refuse,
}

impl From<RuleOptions> for Rules {
    fn from(options: RuleOptions) -> Self {
        Self {
            terminal: match options.terminal {
                TerminalRule::Detach => Terminal::Detach,
                TerminalRule::Refuse => Terminal::Refuse,
            },
            outside_pipe: match options.outside_pipe {
                PipeRule::Null => OutsidePipe::Null,
                PipeRule::Refuse => OutsidePipe::Refuse,
            },
            tcp: match options.tcp {
                TcpRule::Established => Tcp::Established,
                TcpRule::Refuse => Tcp::Refuse,
                TcpRule::Close => Tcp::Close,
                TcpRule::Reset => Tcp::Reset,
            },
            outside_unix: match options.unix {
                UnixRule::Auto => OutsideUnix::Auto,
                UnixRule::Reconnect => OutsideUnix::Reconnect,
                UnixRule::Close => OutsideUnix::Close,
                UnixRule::Refuse => OutsideUnix::Refuse,
            },
        }
    }
}
