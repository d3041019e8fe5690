//! Sends a flood to a UDP port; see `vine_tests::flood`.
//!
//! `flood TARGET RATE SECONDS junk|no-mac` or `flood TARGET RATE SECONDS mac|cookie|replay PEER_ID NETWORK_ID [CAPTURED_HELLO]...`;
//! prints `begins` when it does, and at the end how many datagrams it sent and in how many seconds.

use std::error::Error;
use std::time::{Duration, Instant};

use vine_core::identity::PeerId;
use vine_tests::flood::{Flood, Load};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [target, rate, seconds, kind, rest @ ..] = &args[..] else {
        return Err("flood TARGET RATE SECONDS junk|no-mac|mac|cookie|replay ...".into());
    };
    let load = match (kind.as_str(), rest) {
        ("junk", []) => Load::Junk,
        ("no-mac", []) => Load::ForgedWithoutMac,
        ("mac", [peer, network]) => Load::ForgedWithMac(Load::mac_key(&peer.parse::<PeerId>()?, network)),
        ("cookie", [peer, network]) => Load::ForgedWithCookie(Load::mac_key(&peer.parse::<PeerId>()?, network)),
        ("replay", [peer, network, files @ ..]) => {
            let captured = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
            Load::Replay(Load::mac_key(&peer.parse::<PeerId>()?, network), captured)
        }
        _ => return Err(format!("no such flood: {kind} {rest:?}").into()),
    };
    let flood = Flood::new(&load, target.parse()?)?;
    let (rate, duration) = (rate.parse()?, Duration::from_secs_f64(seconds.parse()?));
    println!("begins");
    let start = Instant::now();
    let sent = flood.send(rate, duration);
    println!("{sent} {:.3}", start.elapsed().as_secs_f64());
    Ok(())
}
