//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;

/// An encrypted mesh network without a server.
#[derive(Debug, Parser)]
#[command(name = "vine", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Configuration file [default: ./vine.toml, then /etc/vine/vine.toml]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Write answers as text for people or as JSON for programs
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make and show the identity of this machine
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Write and check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check whether this machine can run vine, and say what to do where it cannot
    Doctor,
    /// Run the node in the foreground until it is interrupted
    Up,
    /// Stop the running node
    Down,
    /// Run, start, stop and reload the node
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// Show how the running node is
    Status,
    /// Show the peers of the running node
    Peers,
    /// Show which prefix belongs to which peer
    Routes,
    /// Show the encrypted sessions and their paths, and what this node relays
    Sessions(SessionsArgs),
    /// Show what was sent, received and dropped
    Counters,
    /// Show everything at once, as one JSON document
    Snapshot,
    /// Send probes to a peer and say which path carried each
    Ping(PingArgs),
    /// Explain how a peer is reached, what was tried, and what would have to change to reach it directly
    Why {
        /// An overlay address, a peer's name or a peer id
        target: String,
    },
    /// Show how this machine is seen by its peers: NAT, addresses, relays
    Netcheck,
    /// Write, read and check the durable log of this machine
    #[command(subcommand)]
    Log(LogCommand),
    /// Keep keys and values in the log
    #[command(subcommand)]
    Kv(KvCommand),
    /// Run a whole mesh on this machine and watch it work
    Demo(DemoArgs),
    /// Write completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `vine identity`.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make a new identity
    Init {
        #[command(flatten)]
        place: IdentityPlace,
        /// Replace an identity that is there already; it is lost then
        #[arg(long)]
        force: bool,
    },
    /// Show the public names of the identity
    Show(#[command(flatten)] IdentityPlace),
    /// Print the peer id, for the configuration of other machines
    ExportPublic(#[command(flatten)] IdentityPlace),
    /// Print the short form for comparing by eye or voice
    Fingerprint(#[command(flatten)] IdentityPlace),
}

/// Which identity.
#[derive(Debug, Args)]
pub(crate) struct IdentityPlace {
    /// The identity file [default: identity_path of the configuration]
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,
}

/// `vine config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a commented configuration to start from
    Init(ConfigInitArgs),
    /// Report everything that is wrong with the configuration
    Validate {
        /// Check a configuration of another machine, whose identity is not here
        #[arg(long)]
        without_identity: bool,
    },
}

/// `vine config init`.
#[derive(Debug, Args)]
pub(crate) struct ConfigInitArgs {
    /// Replace a file that is there already
    #[arg(long)]
    pub(crate) force: bool,
    /// Name of this node [default: the host name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Name of the network
    #[arg(long, value_name = "ID", default_value = "home-net")]
    pub(crate) network_id: String,
    /// Identity file
    #[arg(long, value_name = "PATH", default_value = "/var/lib/vine/identity")]
    pub(crate) identity_path: PathBuf,
    /// Directory of the daemon's state
    #[arg(long, value_name = "DIR", default_value = crate::config::DEFAULT_STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// Overlay address of this node with its prefix length
    #[arg(long, value_name = "ADDRESS/LENGTH", default_value = "10.42.0.1/24")]
    pub(crate) address: String,
}

/// `vine daemon`.
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Run the node in the foreground (the same as `vine up`)
    Run(RunArgs),
    /// Start the node in the background and wait until it is ready
    Start,
    /// Stop the running node and wait until it is gone
    Stop,
    /// Say whether a node is running for this configuration
    Status,
    /// Make the running node read its configuration again
    Reload,
}

/// `vine daemon run`.
#[derive(Debug, Args, Default)]
pub(crate) struct RunArgs {
    /// How `vine daemon start` runs its child: detach from the terminal, log to this file
    #[arg(long, hide = true, value_name = "LOG")]
    pub(crate) detached: Option<PathBuf>,
}

/// `vine sessions`.
#[derive(Debug, Args)]
pub(crate) struct SessionsArgs {
    /// Show only what this node relays for others
    #[arg(long)]
    pub(crate) relayed: bool,
}

/// `vine log`.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Write to the log, and print the position once it is durable
    Append(AppendArgs),
    /// Print what is in the log, in the order in which it came
    Tail(TailArgs),
    /// Read every byte of the log and say whether it is as it should be
    Verify,
    /// Write all of the log into an archive, for a backup or another machine
    Export {
        /// The file, which must not be there yet, or `-` for standard output
        file: PathBuf,
    },
    /// Take what an archive holds that is not here yet
    Import {
        /// The file, or `-` for standard input
        file: PathBuf,
    },
}

/// `vine log append`.
#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    /// What to write [default: all of standard input]
    #[arg(conflicts_with = "lines")]
    pub(crate) text: Option<OsString>,
    /// Write each line of standard input by itself, without its end; a position is printed for each batch of them
    #[arg(long)]
    pub(crate) lines: bool,
}

/// `vine log tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Begin with the op of this ordinal
    #[arg(long, value_name = "ORDINAL", default_value_t = 0)]
    pub(crate) from: u64,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `vine kv`.
#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Give a key a value, and return once that is durable
    Put {
        /// The key
        key: OsString,
        /// The value [default: all of standard input]
        value: Option<OsString>,
        /// Key and value are given in hexadecimal digits
        #[arg(long)]
        hex: bool,
    },
    /// Print the value of a key
    Get {
        /// The key
        key: OsString,
        /// The key is given, and the value printed, in hexadecimal digits
        #[arg(long)]
        hex: bool,
    },
    /// Take the value of a key away, and return once that is durable
    Delete {
        /// The key
        key: OsString,
        /// The key is given in hexadecimal digits
        #[arg(long)]
        hex: bool,
    },
    /// Print keys with their values, in order
    List {
        /// Only keys that begin with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: OsString,
        /// The prefix is given, and keys and values printed, in hexadecimal digits
        #[arg(long)]
        hex: bool,
    },
    /// Print keys as they are written
    Watch {
        /// Only keys that begin with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: OsString,
        /// Begin with the write of this ordinal [default: what is written from now on]
        #[arg(long, value_name = "ORDINAL")]
        from: Option<u64>,
        /// The prefix is given, and keys and values printed, in hexadecimal digits
        #[arg(long)]
        hex: bool,
    },
}

/// `vine ping`.
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// An overlay address, a peer's name or a peer id
    pub(crate) target: String,
    /// How many probes to send
    #[arg(short = 'n', long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// Seconds between probes
    #[arg(short, long, default_value_t = 1.0, value_parser = positive_seconds)]
    pub(crate) interval: f64,
    /// Seconds to wait for each answer
    #[arg(short = 'W', long, default_value_t = 2.0, value_parser = positive_seconds)]
    pub(crate) timeout: f64,
}

/// `vine demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Use network namespaces and real TUN devices (as root, or where user namespaces are allowed)
    #[arg(long)]
    pub(crate) tun: bool,
}

fn positive_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds between 0.001 and 3600".to_owned()),
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value().expect("no format is hidden");
        f.write_str(value.get_name())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, Command, KvCommand, LogCommand};
    use clap::Parser as _;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        let line = ["vine"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_of_the_log() {
        let Ok(Command::Log(LogCommand::Tail(args))) = parse(&["log", "tail"]) else { panic!("it has defaults") };
        assert_eq!((args.from, args.follow), (0, false));
        let Ok(Command::Log(LogCommand::Append(args))) = parse(&["log", "append", "--", "-x"]) else {
            panic!("a text")
        };
        assert_eq!((args.text, args.lines), (Some("-x".into()), false));
        assert!(parse(&["log", "append", "text", "--lines"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["log", "tail", "--from", "-1"]).is_err());
        assert!(parse(&["log", "export"]).unwrap_err().contains("<FILE>"));
        let Ok(Command::Kv(KvCommand::List { prefix, hex })) = parse(&["kv", "list"]) else { panic!("all keys") };
        assert_eq!((prefix, hex), ("".into(), false));
        assert!(parse(&["kv", "put"]).unwrap_err().contains("<KEY>"));
    }

    #[test]
    fn completions_know_the_log() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "vine", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in ["log,append)", "log,verify)", "kv,watch)", "--follow"] {
            assert!(script.contains(command), "{command}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
