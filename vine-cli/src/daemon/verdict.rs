//! What the path to a peer is and why, in a sentence, and what would have to change for a better one.

use crate::api::{Check, Why};

/// Addresses that a sentence names at most.
const MAX_NAMED: usize = 4;

/// A check that was sent within this time may yet be answered.
const PENDING_S: f64 = 4.0;

/// Fills in the conclusion and the advice.
pub(super) fn conclude(why: &mut Why) {
    let (conclusion, advice) = match why.way.as_ref().map(|way| way.class.as_str()) {
        Some("relay") => relayed(why),
        Some(class) => (direct(why, class), None),
        None => unreached(why),
    };
    why.conclusion = conclusion;
    why.advice = advice;
}

fn direct(why: &Why, class: &str) -> String {
    let (peer, path) = (&why.peer, why.way.as_ref().map_or("", |way| way.path.as_str()));
    let origin = match class {
        "direct" => {
            format!("at an address that was configured, that worked before, or that {peer} came from by itself")
        }
        _ => "at an address that the two told each other through a common peer".to_owned(),
    };
    let proof = match why.state.as_str() {
        "connected" => "what is sent there arrives",
        "idle" => "it worked when it was last asked, and nothing was sent lately that asks for an answer",
        _ => "it does not answer at the moment",
    };
    format!("{peer} is reached directly ({path}), {origin}; {proof}.")
}

fn relayed(why: &Why) -> (String, Option<String>) {
    let relay = why.way.as_ref().and_then(|way| way.relay.as_deref()).unwrap_or("a relay");
    let Obstacle { because, cure } = obstacle(why);
    (format!("{} is reached through the relay {relay}: {because}.", why.peer), Some(format!("To go direct: {cure}.")))
}

/// What stands in the way of a direct path.
struct Obstacle {
    because: String,
    cure: String,
}

impl Obstacle {
    fn new(because: impl Into<String>, cure: impl Into<String>) -> Obstacle {
        Obstacle { because: because.into(), cure: cure.into() }
    }
}

fn obstacle(why: &Why) -> Obstacle {
    let peer = &why.peer;
    if let Some(lost) = why.paths.iter().find(|path| path.state == "lost") {
        return Obstacle::new(
            format!("the direct path {} was lost and does not answer", lost.way.path),
            "nothing has to be done; it is tried on, and used again once it has answered a few times",
        );
    }
    if !why.policy.allow_signaling_upgrade {
        return Obstacle::new(
            "this node's policy forbids to arrange a direct path (allow_signaling_upgrade = false)",
            "set allow_signaling_upgrade = true on both sides, or name an address of one side in [[bootstrap_peers]] of the other",
        );
    }
    if why.checks.iter().any(is_pending) {
        return Obstacle::new(
            format!("the addresses of {peer} are being tried"),
            "wait for some seconds and ask again",
        );
    }
    let Some(remote) = &why.remote else {
        return match why.in_use {
            false => Obstacle::new(
                "nobody sends at the moment, and only then a direct path is sought",
                format!("send something to {peer}, and ask again"),
            ),
            true => Obstacle::new(
                format!("{peer} has not told where it is; its policy may forbid it (allow_signaling_upgrade = false)"),
                format!("set allow_signaling_upgrade = true on {peer}"),
            ),
        };
    };
    if why.checks.is_empty() {
        return Obstacle::new(
            format!("{peer} named no address that may be tried"),
            format!("look at vine netcheck on {peer}"),
        );
    }
    if why.checks.iter().all(|check| check.outcome == "refused") {
        return Obstacle::new(
            format!("this host can send to none of the {} that {peer} named", addresses(why.checks.len())),
            "look at this host's routes and at its firewall for outgoing UDP",
        );
    }
    between_nats(why, &remote.nat)
}

/// Everything was tried and nothing came back: what the NATs say of the reason.
fn between_nats(why: &Why, remote_nat: &str) -> Obstacle {
    let (peer, ports) = (&why.peer, port_text(&why.ports));
    let tried = addresses(why.checks.len());
    match (why.nat.as_str(), remote_nat) {
        ("address_dependent", "address_dependent") => Obstacle::new(
            "the NATs of both sides map by address, so that neither can tell the other where it is seen",
            format!(
                "forward UDP {ports} to this host on its NAT, or the same on {peer}'s side, and name that address in [[bootstrap_peers]] of the other"
            ),
        ),
        ("address_dependent", _) => Obstacle::new(
            format!(
                "this side's NAT maps by address, and {peer}'s side lets in only whom it has sent to ({tried} tried)"
            ),
            format!("forward a UDP port to {peer} on its NAT or firewall, or UDP {ports} to this host"),
        ),
        (_, "address_dependent") => Obstacle::new(
            format!("{peer}'s NAT maps by address, and this side lets in only whom it has sent to ({tried} tried)"),
            format!("forward UDP {ports} to this host on its NAT or firewall, or a UDP port to {peer}"),
        ),
        _ => Obstacle::new(
            format!(
                "{tried} of {peer} stayed silent, though neither NAT is known to be in the way: a firewall drops UDP"
            ),
            format!("let UDP {ports} in to this host, or vine's UDP port in to {peer}"),
        ),
    }
}

fn unreached(why: &Why) -> (String, Option<String>) {
    let peer = &why.peer;
    if why.departed {
        return (
            format!("{peer} said goodbye and has not been heard of since."),
            Some(format!("Start vine on {peer}.")),
        );
    }
    let known = why.known.iter().map(|known| known.address.as_str());
    let checked = why.checks.iter().map(|check| check.address.as_str());
    let mut tried: Vec<&str> = known.chain(checked).collect();
    tried.sort_unstable();
    tried.dedup();
    if tried.is_empty() && why.helpers.is_empty() {
        return (
            format!(
                "nobody knows where {peer} is: no address is configured or remembered, and no common peer is connected."
            ),
            Some(format!("Name an address of {peer} in [[bootstrap_peers]], or connect both to a common peer.")),
        );
    }
    let more = tried.len().saturating_sub(MAX_NAMED);
    tried.truncate(MAX_NAMED);
    let mut text = match tried.len() {
        0 => format!("{peer} cannot be found"),
        _ => format!("{peer} does not answer at {}", tried.join(", ")),
    };
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    let helpers: Vec<&str> = why.helpers.iter().take(MAX_NAMED).map(|helper| helper.peer.as_str()).collect();
    if helpers.is_empty() {
        text.push_str(", and no common peer is connected that could help");
    } else if why.policy.allow_signaling_upgrade {
        text.push_str(&format!(", and was not found through {} either", helpers.join(", ")));
    }
    let cure = format!(
        "See whether vine runs on {peer}, lets its UDP port in, and has this node in its [[allowed_peers]]; its `vine counters` show what arrives."
    );
    (format!("{text}."), Some(cure))
}

fn is_pending(check: &Check) -> bool {
    check.outcome == "waiting" && check.last_try_s.is_none_or(|age| age < PENDING_S)
}

fn addresses(count: usize) -> String {
    if count == 1 { "the one address".to_owned() } else { format!("{count} addresses") }
}

fn port_text(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    match ports.as_slice() {
        [] => "its port".to_owned(),
        [port] => format!("port {port}"),
        _ => format!("ports {}", ports.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Candidate, PathEntry, RelayEntry, RemoteSide, Way, WhyPolicy};

    fn way(class: &str) -> Way {
        let relay = (class == "relay").then(|| "tr".to_owned());
        let path = if relay.is_some() { "via tr" } else { "udp 192.0.2.2:4100" };
        Way { class: class.to_owned(), path: path.to_owned(), relay }
    }

    fn why(class: Option<&str>) -> Why {
        Why {
            peer: "beta".to_owned(),
            peer_id: String::new(),
            state: "connected".to_owned(),
            session: class.is_some(),
            departed: false,
            in_use: true,
            way: class.map(way),
            mtu: None,
            paths: Vec::new(),
            known: Vec::new(),
            checks: Vec::new(),
            legs: Vec::new(),
            candidates: Vec::new(),
            nat: "endpoint_independent".to_owned(),
            ports: vec![4100],
            remote: None,
            helpers: Vec::new(),
            policy: WhyPolicy { allow_relay: true, allow_signaling_upgrade: true },
            history: Vec::new(),
            conclusion: String::new(),
            advice: None,
        }
    }

    fn check(outcome: &str) -> Check {
        Check {
            address: "198.51.100.7:4100".to_owned(),
            kind: "reflexive".to_owned(),
            outcome: outcome.to_owned(),
            tries: 8,
            rtt_ms: None,
            last_try_s: Some(30.0),
        }
    }

    /// A relayed pair whose checks had this outcome, behind these NATs.
    fn relayed(own: &str, remote: &str, outcome: &str) -> Why {
        let remote = RemoteSide { nat: remote.to_owned(), results: Vec::new(), age_s: 1.0 };
        Why { nat: own.to_owned(), remote: Some(remote), checks: vec![check(outcome)], ..why(Some("relay")) }
    }

    #[track_caller]
    fn says(mut why: Why, conclusion: &str, advice: &str) {
        conclude(&mut why);
        assert!(why.conclusion.contains(conclusion) && why.conclusion.ends_with('.'), "{}", why.conclusion);
        let given = why.advice.unwrap_or_default();
        assert!(given.contains(advice) && given.is_empty() == advice.is_empty(), "{given}");
    }

    #[test]
    fn a_direct_path_needs_no_advice() {
        says(why(Some("direct")), "beta is reached directly (udp 192.0.2.2:4100)", "");
        says(why(Some("signaling_then_direct")), "through a common peer; what is sent there arrives", "");
        let silent = Why { state: "connecting".to_owned(), ..why(Some("direct")) };
        says(silent, "it does not answer", "");
    }

    #[test]
    fn a_relay_has_a_reason_and_a_cure() {
        let forbids = Why {
            policy: WhyPolicy { allow_relay: true, allow_signaling_upgrade: false },
            ..relayed("unknown", "unknown", "silent")
        };
        says(forbids, "this node's policy forbids", "allow_signaling_upgrade = true on both");
        says(Why { in_use: false, ..why(Some("relay")) }, "nobody sends", "send something to beta");
        says(why(Some("relay")), "beta has not told where it is", "allow_signaling_upgrade = true on beta");
        let both = relayed("address_dependent", "address_dependent", "silent");
        says(both, "relay tr: the NATs of both sides map by address", "forward UDP port 4100");
        says(relayed("address_dependent", "none", "silent"), "this side's NAT maps by address", "UDP port to beta");
        says(
            relayed("none", "address_dependent", "silent"),
            "beta's NAT maps by address",
            "UDP port 4100 to this host",
        );
        says(relayed("none", "none", "silent"), "a firewall drops UDP", "let UDP port 4100 in");
        says(relayed("none", "none", "refused"), "this host can send to none", "routes");
        let pending = Why {
            checks: vec![Check { last_try_s: Some(0.1), ..check("waiting") }],
            ..relayed("none", "none", "silent")
        };
        says(pending, "are being tried", "ask again");
        let lost = PathEntry {
            way: way("direct"),
            state: "lost".to_owned(),
            preferred: false,
            rtt_ms: None,
            mtu: 1200,
            proof_age_s: Some(9.0),
        };
        says(Why { paths: vec![lost], ..why(Some("relay")) }, "udp 192.0.2.2:4100 was lost", "nothing has to be done");
    }

    #[test]
    fn a_peer_that_is_not_reached() {
        says(Why { departed: true, ..why(None) }, "said goodbye", "Start vine on beta");
        says(why(None), "nobody knows where beta is", "[[bootstrap_peers]]");
        let known = (1..=6).map(|n| Candidate { kind: "configured".to_owned(), address: format!("192.0.2.{n}:4100") });
        let known = Why { known: known.collect(), ..why(None) };
        says(known.clone(), "192.0.2.4:4100 and 2 more, and no common peer", "whether vine runs on beta");
        let helper = RelayEntry {
            peer: "tr".to_owned(),
            peer_id: String::new(),
            state: "connected".to_owned(),
            direct: true,
            rtt_ms: None,
        };
        says(Why { helpers: vec![helper], ..known }, "was not found through tr either", "vine counters");
    }
}
