//! Where peers were reached last: kept in a file, so that two of them find each other again with nobody there to ask.
//!
//! ```text
//! vine-last-known 1
//! <peer id> <address> <address> ...
//! end <number of peers>
//! ```
//!
//! A file that is not whole in every line is not believed at all. Nothing depends on it but speed: an address that leads
//! nowhere gets a few Hellos, and who answers has to prove its key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use vine_core::PeerId;

use crate::config::Config;
use crate::files::{Existing, write_atomically};

/// Name of the file in the state directory.
const FILE: &str = "last-known";
/// Its first line.
const HEADER: &str = "vine-last-known 1";
/// Addresses of one peer that are kept, the latest first.
const MAX_ADDRESSES: usize = 4;
/// A file longer than this is something else: as many peers as a node takes fit twice.
const MAX_FILE: u64 = 4 << 20;

/// Addresses by peer, the latest first.
type Known = BTreeMap<PeerId, Vec<SocketAddr>>;

/// What is remembered of where peers are.
#[derive(Debug)]
pub(crate) struct LastKnown {
    path: PathBuf,
    known: Known,
    /// What the file says.
    saved: Known,
}

impl LastKnown {
    /// Reads the file of a state directory. One that is damaged counts as none, with a warning in the log.
    pub(super) fn load(state_dir: &Path) -> LastKnown {
        let path = state_dir.join(FILE);
        let known = match read(&path) {
            Ok(known) => known,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Known::new(),
            Err(error) => {
                tracing::warn!(%error, "{} is ignored; it is written anew when peers are reached", path.display());
                Known::new()
            }
        };
        LastKnown { path, saved: known.clone(), known }
    }

    /// Where a peer was reached, as far as one may go there: an address in the overlay would lead through the tunnel that
    /// is to be set up.
    pub(crate) fn of(&self, peer: &PeerId, config: &Config) -> Vec<SocketAddr> {
        let known = self.known.get(peer).into_iter().flatten();
        known.copied().filter(|address| is_worth_a_try(*address, config)).collect()
    }

    /// Takes in where peers are reached now, the best address of each first. What was known besides is kept behind it.
    pub(super) fn note(&mut self, reached: &[(PeerId, SocketAddr)]) {
        let mut fresh = Known::new();
        for (peer, address) in reached {
            fresh.entry(*peer).or_default().push(*address);
        }
        for (peer, mut addresses) in fresh {
            let known = self.known.entry(peer).or_default();
            let former: Vec<SocketAddr> = known.iter().copied().filter(|old| !addresses.contains(old)).collect();
            addresses.extend(former);
            addresses.truncate(MAX_ADDRESSES);
            *known = addresses;
        }
    }

    /// Forgets the peers that `keep` does not name: they are not allowed any more.
    pub(super) fn retain(&mut self, keep: impl Fn(&PeerId) -> bool) {
        self.known.retain(|peer, _| keep(peer));
    }

    /// What is to be written where it is not what the file says. It then counts as written; where that fails, the next
    /// change is another try.
    pub(super) fn take_unsaved(&mut self) -> Option<Unsaved> {
        if self.known == self.saved {
            return None;
        }
        self.saved.clone_from(&self.known);
        Some(Unsaved { path: self.path.clone(), text: text(&self.known) })
    }
}

/// A file that is to be written; that takes as long as the disk takes.
pub(super) struct Unsaved {
    path: PathBuf,
    text: String,
}

impl Unsaved {
    /// Writes the file; what goes wrong is logged, for the node works without.
    pub(super) fn save(&self) {
        let written =
            write_atomically(&self.path, 0o600, Existing::Replace, |file| file.write_all(self.text.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write {}", self.path.display());
        }
    }
}

fn is_worth_a_try(address: SocketAddr, config: &Config) -> bool {
    let ip: IpAddr = address.ip();
    let own = config.tun.own_prefixes();
    let mut overlay = own.iter().chain(config.peers.iter().flat_map(|peer| &peer.prefixes));
    let is_one_host = !ip.is_unspecified() && !ip.is_multicast() && address.port() != 0;
    is_one_host && !overlay.any(|prefix| prefix.contains(ip))
}

fn read(path: &Path) -> io::Result<Known> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    let text = fs::read_to_string(path)?;
    parse(&text).map_err(|line| io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is damaged")))
}

fn text(known: &Known) -> String {
    let mut text = format!("{HEADER}\n");
    for (peer, addresses) in known {
        let _ = write!(text, "{peer}");
        for address in addresses {
            let _ = write!(text, " {address}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "end {}", known.len());
    text
}

/// Reads a whole file; the error is the number of the line that is wrong.
fn parse(text: &str) -> Result<Known, usize> {
    let mut known = Known::new();
    let mut lines = (1..).zip(text.lines());
    if lines.next().is_none_or(|(_, line)| line != HEADER) {
        return Err(1);
    }
    for (number, line) in lines {
        let mut words = line.split(' ');
        match words.next() {
            Some("end") => {
                let is_whole = line == format!("end {}", known.len()) && number == text.lines().count();
                return if is_whole && text.ends_with('\n') { Ok(known) } else { Err(number) };
            }
            peer => {
                let peer: PeerId = peer.and_then(|peer| peer.parse().ok()).ok_or(number)?;
                let addresses: Result<Vec<SocketAddr>, _> = words.map(str::parse).collect();
                let addresses = addresses.ok().filter(|all| (1..=MAX_ADDRESSES).contains(&all.len())).ok_or(number)?;
                if known.insert(peer, addresses).is_some() {
                    return Err(number);
                }
            }
        }
    }
    Err(text.lines().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use vine_core::Identity;

    fn id(n: u8) -> PeerId {
        Identity::from_seed([n; 32]).peer_id()
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn it_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = LastKnown::load(dir.path());
        assert!(known.take_unsaved().is_none());
        known.note(&[(id(1), at("192.0.2.1:4100")), (id(2), at("[2001:db8::2]:4100")), (id(1), at("10.0.0.1:4100"))]);
        known.take_unsaved().unwrap().save();
        assert!(known.take_unsaved().is_none(), "nothing has changed since");
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut again = LastKnown::load(dir.path());
        assert_eq!(again.known, known.known);
        // The latest comes first, and no more than a few are kept.
        for n in 0..10 {
            again.note(&[(id(1), SocketAddr::from(([192, 0, 2, 9], 5000 + n)))]);
        }
        assert_eq!(again.known[&id(1)].len(), MAX_ADDRESSES);
        assert_eq!(again.known[&id(1)][0], at("192.0.2.9:5009"));
        again.retain(|peer| *peer == id(1));
        assert_eq!(again.known.len(), 1);
    }

    #[test]
    fn a_damaged_file_is_ignored_as_a_whole() {
        let known = Known::from([(id(1), vec![at("192.0.2.1:4100")]), (id(2), vec![at("192.0.2.2:4100")])]);
        let whole = text(&known);
        assert_eq!(parse(&whole), Ok(known));
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "cut after {length} bytes");
        }
        for (from, to) in [
            (HEADER, "vine-last-known 2"),
            ("192.0.2.1:4100", "192.0.2.1"),
            ("end 2", "end 1"),
            (" 192.0.2.1:4100", ""),
            ("end 2\n", "end 2\nmore\n"),
        ] {
            assert!(parse(&whole.replace(from, to)).is_err(), "{to}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), [0xff, 0xfe, 0, 7]).unwrap();
        assert_eq!(LastKnown::load(dir.path()).known, Known::new());
    }
}
