//! `vine why` and `vine netcheck`, for people.

use std::path::PathBuf;
use std::time::Duration;

use super::live::{ago, class_tone, show, tone};
use super::{client, runtime};
use crate::api::{Candidate, Family, HistoryEntry, Netcheck, RelayEntry, Way, Why, WhyRequest};
use crate::output::{self, Format, Outcome, Table, Tone};

/// The daemon asks the peer before it answers.
const ASKS_FOR: Duration = Duration::from_secs(1);

/// Entries of the history that people are shown; programs get all.
const SHOWN: usize = 12;

pub(super) fn why(target: String, config: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(config)?;
    let why: Why = runtime()?.block_on(client.post("/v1/why", &WhyRequest { target }, ASKS_FOR))?;
    match format {
        Format::Json => output::json(&why),
        Format::Text => output::line(why_text(&why, output::colour())),
    }
    Ok(())
}

fn why_text(why: &Why, colour: bool) -> String {
    let mut sections = vec![head(why, colour)];
    sections.extend(paths(why, colour));
    sections.extend(checks(why, colour));
    sections.extend(remote(why, colour));
    sections.extend(legs(why, colour));
    sections.extend(history(why));
    let mut end = why.conclusion.clone();
    if let Some(advice) = &why.advice {
        end.push('\n');
        end.push_str(advice);
    }
    sections.push(end);
    sections.join("\n\n")
}

fn head(why: &Why, colour: bool) -> String {
    let yes = |allowed: bool| if allowed { "yes" } else { "no" };
    let mut lines = vec![format!("peer     {} {}", why.peer, output::toned(&why.state, tone(&why.state), colour))];
    lines.push(match &why.way {
        Some(way) => format!("path     {}", way_text(way)),
        None => "path     none proven".to_owned(),
    });
    lines.extend(why.mtu.map(|mtu| format!("mtu      {mtu}")));
    lines.push(format!("in use   {}", yes(why.in_use)));
    lines.push(format!(
        "nat      {} here, {} there",
        nat_text(&why.nat),
        why.remote.as_ref().map_or("unknown", |remote| nat_text(&remote.nat))
    ));
    lines.push(format!("told     {}", candidates_text(&why.candidates)));
    if !why.known.is_empty() {
        lines.push(format!("known    {}", candidates_text(&why.known)));
    }
    if !why.helpers.is_empty() {
        let names: Vec<&str> = why.helpers.iter().map(|helper| helper.peer.as_str()).collect();
        lines.push(format!("common   {}", names.join(", ")));
    }
    let policy = why.policy;
    lines.push(format!(
        "policy   relay {}, signaling {}",
        yes(policy.allow_relay),
        yes(policy.allow_signaling_upgrade)
    ));
    lines.join("\n")
}

fn way_text(way: &Way) -> String {
    format!("{} {}", way.class, way.path)
}

/// A NAT's mapping as people say it.
fn nat_text(nat: &str) -> &str {
    match nat {
        "none" => "none",
        "endpoint_independent" => "one mapping for all",
        "address_dependent" => "a mapping for each address",
        _ => "unknown",
    }
}

fn candidates_text(candidates: &[Candidate]) -> String {
    let all: Vec<String> = candidates.iter().map(|own| format!("{} ({})", own.address, own.kind)).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// A table under its title, unless it has no rows.
fn titled(title: &str, headers: &[&'static str], colour: bool, fill: impl FnOnce(&mut Table)) -> Option<String> {
    let mut table = Table::new(headers);
    fill(&mut table);
    (!table.is_empty()).then(|| format!("{title}\n{}", table.render(colour)))
}

fn paths(why: &Why, colour: bool) -> Option<String> {
    titled("paths", &["", "PATH", "CLASS", "STATE", "RTT", "MTU", "LAST PROOF"], colour, |table| {
        for path in &why.paths {
            table.row([
                (if path.preferred { "*" } else { "" }.to_owned(), Tone::Good),
                (path.way.path.clone(), Tone::Plain),
                (path.way.class.clone(), class_tone(&path.way.class)),
                (path.state.clone(), state_tone(&path.state)),
                (output::milliseconds(path.rtt_ms), Tone::Plain),
                (path.mtu.to_string(), Tone::Plain),
                (ago(path.proof_age_s), Tone::Plain),
            ]);
        }
    })
}

fn state_tone(state: &str) -> Tone {
    match state {
        "usable" | "proven" | "answered" => Tone::Good,
        "suspect" | "waiting" | "asked" => Tone::Warn,
        "lost" | "silent" | "refused" => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn checks(why: &Why, colour: bool) -> Option<String> {
    let title = format!("addresses of {} that were tried", why.peer);
    titled(&title, &["ADDRESS", "KIND", "OUTCOME", "TRIES", "RTT", "LAST TRY"], colour, |table| {
        for check in &why.checks {
            table.row([
                (check.address.clone(), Tone::Plain),
                (check.kind.clone(), Tone::Plain),
                (check.outcome.clone(), state_tone(&check.outcome)),
                (check.tries.to_string(), Tone::Plain),
                (output::milliseconds(check.rtt_ms), Tone::Plain),
                (ago(check.last_try_s), Tone::Plain),
            ]);
        }
    })
}

fn remote(why: &Why, colour: bool) -> Option<String> {
    let remote = why.remote.as_ref()?;
    let title = format!("addresses of this node that {} tried, as it said {}", why.peer, ago(Some(remote.age_s)));
    titled(&title, &["ADDRESS", "OUTCOME"], colour, |table| {
        for result in &remote.results {
            table.row([(result.address.clone(), Tone::Plain), (result.outcome.clone(), state_tone(&result.outcome))]);
        }
    })
}

fn legs(why: &Why, colour: bool) -> Option<String> {
    titled("relays between", &["RELAY", "STATE", "SINCE", "LAST END"], colour, |table| {
        for leg in &why.legs {
            table.row([
                (leg.relay.clone(), Tone::Plain),
                (leg.state.clone(), state_tone(&leg.state)),
                (ago(Some(leg.age_s)), Tone::Plain),
                (leg.reason.clone().unwrap_or_else(|| "-".to_owned()), Tone::Plain),
            ]);
        }
    })
}

fn history(why: &Why) -> Option<String> {
    let skipped = why.history.len().saturating_sub(SHOWN);
    let lines: Vec<String> = why.history.iter().skip(skipped).map(history_text).collect();
    (!lines.is_empty()).then(|| format!("history\n{}", lines.join("\n")))
}

fn history_text(entry: &HistoryEntry) -> String {
    let mut text = output::utc(entry.at_ms);
    text.push(' ');
    match (&entry.from, &entry.to) {
        (Some(from), Some(to)) => text.push_str(&format!("{} -> {}", way_text(from), way_text(to))),
        (None, Some(to)) => text.push_str(&way_text(to)),
        _ => text.push_str(&entry.event),
    }
    if let Some(why) = &entry.why {
        text.push_str(&format!(" ({why})"));
    }
    if entry.unanswered > 0 {
        text.push_str(&format!(", {} unanswered", output::count_of(entry.unanswered.into(), "probe")));
    }
    if let Some(back) = entry.back_after_s {
        text.push_str(&format!(", back after {}", output::seconds(back)));
    }
    text
}

pub(super) fn netcheck(config: Option<PathBuf>, format: Format) -> Outcome {
    show(config, format, "/v1/netcheck", |netcheck: &Netcheck, colour| netcheck_text(netcheck, colour))
}

fn netcheck_text(netcheck: &Netcheck, colour: bool) -> String {
    let (udp, udp_tone) = match netcheck.udp {
        Some(true) => ("works: peers answer", Tone::Good),
        Some(false) => ("no peer answers", Tone::Bad),
        None => ("unknown: no peer is connected", Tone::Warn),
    };
    let mapping = match netcheck.mapping.as_str() {
        "none" => "none: peers see an address of this host",
        "endpoint_independent" => "endpoint_independent: one mapping for all, hole punching works",
        "address_dependent" => "address_dependent: a mapping for each address, a peer behind the same needs a relay",
        _ => "unknown: two peers at different addresses have to see this node",
    };
    let mut sections = vec![
        [
            format!("udp      {}", output::toned(udp, udp_tone, colour)),
            format!("ipv4     {}", family_text(&netcheck.ipv4)),
            format!("ipv6     {}", family_text(&netcheck.ipv6)),
            format!("mapping  {mapping}"),
            format!("hairpin  {}", netcheck.hairpin.replace('_', " ")),
            format!("told     {}", candidates_text(&netcheck.candidates)),
        ]
        .join("\n"),
    ];
    sections.extend(titled("seen from", &["PEER", "AT", "SEES THIS NODE AT", "PORT HERE", "AGE"], colour, |table| {
        for seen in &netcheck.seen {
            table.row([
                (seen.peer.clone(), Tone::Plain),
                (seen.remote.clone(), Tone::Plain),
                (seen.address.clone(), Tone::Plain),
                (seen.port.map_or_else(|| "-".to_owned(), |port| port.to_string()), Tone::Plain),
                (ago(Some(seen.age_s)), Tone::Plain),
            ]);
        }
    }));
    sections.extend(relays(&netcheck.relays, colour));
    sections.join("\n\n")
}

fn family_text(family: &Family) -> String {
    match (family.socket, family.addresses.as_slice()) {
        (false, _) => "not listened on".to_owned(),
        (true, []) => "no address".to_owned(),
        (true, addresses) => {
            let answered = if family.answered { "peers answer" } else { "no peer has answered" };
            format!("{} ({answered})", addresses.join(", "))
        }
    }
}

fn relays(relays: &[RelayEntry], colour: bool) -> Option<String> {
    titled("relays", &["RELAY", "STATE", "CAN CARRY", "RTT"], colour, |table| {
        for relay in relays {
            let (carries, carries_tone) = if relay.direct { ("yes", Tone::Good) } else { ("no", Tone::Warn) };
            table.row([
                (relay.peer.clone(), Tone::Plain),
                (relay.state.clone(), tone(&relay.state)),
                (carries.to_owned(), carries_tone),
                (output::milliseconds(relay.rtt_ms), Tone::Plain),
            ]);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_is_told_in_one_line() {
        let way = |class: &str, path: &str, relay: Option<&str>| Way {
            class: class.to_owned(),
            path: path.to_owned(),
            relay: relay.map(str::to_owned),
        };
        let entry = HistoryEntry {
            at_ms: 1_735_700_000_000,
            event: "switched".to_owned(),
            from: Some(way("direct", "udp 192.0.2.2:4100", None)),
            to: Some(way("relay", "via tr", Some("tr"))),
            why: Some("path_lost".to_owned()),
            unanswered: 3,
            back_after_s: Some(41.0),
        };
        let text = "2025-01-01 02:53:20Z direct udp 192.0.2.2:4100 -> relay via tr (path_lost), 3 probes unanswered, back after 41 s";
        assert_eq!(history_text(&entry), text);
        let down = HistoryEntry {
            event: "down".to_owned(),
            from: None,
            to: None,
            why: Some("unreachable".to_owned()),
            unanswered: 0,
            back_after_s: None,
            ..entry
        };
        assert_eq!(history_text(&down), "2025-01-01 02:53:20Z down (unreachable)");
    }
}
