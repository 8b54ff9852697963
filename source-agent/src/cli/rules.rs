//! The operator's answers for what leads out of the tree.

use clap::{Args, ValueEnum};
use engine::kinds::{OutsidePipe, Rules, Tcp, Terminal};

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RuleOptions {
    /// TCP connections: the program sees them closed, or they stand against the move
    #[arg(long, value_enum, default_value_t = TcpRule::Refuse)]
    tcp: TcpRule,
    /// A terminal: its descriptors lead to /dev/null afterwards, or it stands against the move
    #[arg(long, value_enum, default_value_t = TerminalRule::Detach)]
    terminal: TerminalRule,
    /// A pipe to or from a process outside: it leads to /dev/null, or stands against the move
    #[arg(long, value_enum, default_value_t = PipeRule::Null)]
    outside_pipe: PipeRule,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TcpRule {
    Close,
    Refuse,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TerminalRule {
    Detach,
    Refuse,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PipeRule {
    Null,
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
                TcpRule::Close => Tcp::Close,
                TcpRule::Refuse => Tcp::Refuse,
            },
        }
    }
}
