//! Commands that show what the running daemon answers.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::{client, runtime};
use crate::api::{Counters, LogStatus, Peer, PingReply, PingRequest, Relayed, Route, Session, Snapshot, Status};
use crate::cli::{PingArgs, SessionsArgs};
use crate::client::{Client, ClientError};
use crate::output::{self, Format, Outcome, Table, Tone};

/// Asks for `what` and shows it: as it came for programs, rendered for people.
pub(super) fn show<T: DeserializeOwned + Serialize>(
    config: Option<PathBuf>,
    format: Format,
    what: &str,
    render: impl FnOnce(&T, bool) -> String,
) -> Outcome {
    let client = client(config)?;
    let answer: T = runtime()?.block_on(client.get(what))?;
    match format {
        Format::Json => output::json(&answer),
        Format::Text => output::line(render(&answer, output::colour())),
    }
    Ok(())
}

pub(super) fn status(config: Option<PathBuf>, format: Format) -> Outcome {
    show(config, format, "/v1/status", |status: &Status, _| {
        [
            format!("node     {} of network {}", status.name, status.network_id),
            format!("peer id  {}", status.peer_id),
            format!("phase    {}, for {}", status.phase.name(), output::seconds(status.uptime_s)),
            format!("peers    {} of {} connected", status.peers_connected, status.peers_total),
            log_text(&status.log),
        ]
        .join("\n")
    })
}

/// The log's part, in lines under each other.
fn log_text(log: &LogStatus) -> String {
    let mut lines = Vec::new();
    match (&log.ops, &log.logs, &log.bytes) {
        (Some(ops), Some(logs), Some(bytes)) => {
            let (ops, logs) = (output::count_of(*ops, "op"), output::count(*logs, "log"));
            let (bytes, limit) = (output::bytes(*bytes), output::bytes(log.max_bytes));
            lines.push(format!("{}, {ops} of {logs}, {bytes} of {limit}", log.state));
            lines.push(match (log.last_sync_age_s, log.last_sync_ms) {
                (Some(age), took) => {
                    format!("last synced {} ago in {}", output::seconds(age), output::milliseconds(took))
                }
                _ => "nothing written since the start".to_owned(),
            });
        }
        _ => lines.push(log.state.clone()),
    }
    lines.extend(log.error.clone());
    if log.view_is_full {
        lines.push("keys and values have reached view_bytes in [log], and are not up to date; raise it".to_owned());
    }
    if log.refusals > 0 {
        lines.push(format!("{} refused since the start", output::count_of(log.refusals, "request")));
    }
    let lost = log.findings.iter().filter(|finding| finding.lost).count() as u64 + log.unlisted;
    if lost > 0 {
        lines.push(format!("damaged: {}; see: vine log verify", output::count_of(lost, "finding")));
    }
    format!("log      {}", lines.join("\n         "))
}

/// How a peer's state is coloured.
pub(super) fn tone(state: &str) -> Tone {
    match state {
        "connected" => Tone::Good,
        "connecting" => Tone::Warn,
        "down" => Tone::Bad,
        _ => Tone::Plain,
    }
}

pub(super) fn ago(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |age| format!("{} ago", output::seconds(age)))
}

pub(super) fn peers(config: Option<PathBuf>, format: Format) -> Outcome {
    show(config, format, "/v1/peers", |peers: &Vec<Peer>, colour| {
        let mut table = Table::new(&["NAME", "STATE", "RTT", "LAST SEEN", "PREFIXES", "PEER ID"]);
        for peer in peers {
            table.row([
                (peer.name.clone(), Tone::Plain),
                (peer.state.clone(), tone(&peer.state)),
                (output::milliseconds(peer.rtt_ms), Tone::Plain),
                (ago(peer.last_seen_s), Tone::Plain),
                (peer.prefixes.join(", "), Tone::Plain),
                (peer.peer_id.clone(), Tone::Faint),
            ]);
        }
        table.render(colour)
    })
}

pub(super) fn routes(config: Option<PathBuf>, format: Format) -> Outcome {
    show(config, format, "/v1/routes", |routes: &Vec<Route>, colour| {
        let mut table = Table::new(&["PREFIX", "PEER", "INSTALLED"]);
        for route in routes {
            let (installed, tone) = if route.installed { ("yes", Tone::Good) } else { ("no", Tone::Warn) };
            table.row([
                (route.prefix.clone(), Tone::Plain),
                (route.peer.clone(), Tone::Plain),
                (installed.to_owned(), tone),
            ]);
        }
        table.render(colour)
    })
}

pub(super) fn sessions(args: &SessionsArgs, config: Option<PathBuf>, format: Format) -> Outcome {
    if args.relayed {
        return show(config, format, "/v1/relayed", |relayed: &Vec<Relayed>, colour| match relayed.as_slice() {
            [] => "nothing is relayed for others".to_owned(),
            some => relayed_table(some, colour),
        });
    }
    let client = client(config)?;
    let runtime = runtime()?;
    let sessions: Vec<Session> = runtime.block_on(client.get("/v1/sessions"))?;
    if format == Format::Json {
        output::json(&sessions);
        return Ok(());
    }
    output::line(sessions_table(&sessions, output::colour()));
    let relayed: Vec<Relayed> = runtime.block_on(client.get("/v1/relayed"))?;
    if !relayed.is_empty() {
        output::line(format_args!("\nrelayed for others\n{}", relayed_table(&relayed, output::colour())));
    }
    Ok(())
}

fn sessions_table(sessions: &[Session], colour: bool) -> String {
    let mut table =
        Table::new(&["PEER", "CLASS", "PATH", "RTT", "MTU", "KEYS", "SENT", "RECEIVED", "CIPHER", "PEER ID"]);
    for session in sessions {
        table.row([
            (session.peer.clone(), Tone::Plain),
            (session.class.clone(), class_tone(&session.class)),
            (session.path.clone().unwrap_or_else(|| "none proven".to_owned()), Tone::Plain),
            (output::milliseconds(session.rtt_ms), Tone::Plain),
            (session.mtu.to_string(), Tone::Plain),
            (ago(Some(session.handshake_age_s)), Tone::Plain),
            (output::bytes(session.tx_bytes), Tone::Plain),
            (output::bytes(session.rx_bytes), Tone::Plain),
            (session.cipher.clone(), Tone::Plain),
            (session.peer_id.clone(), Tone::Faint),
        ]);
    }
    table.render(colour)
}

/// What this node passes on, one line a pair.
fn relayed_table(relayed: &[Relayed], colour: bool) -> String {
    let mut table = Table::new(&["BETWEEN", "AND", "THERE", "BACK", "DROPPED", "OPENED", "LAST USED"]);
    for channel in relayed {
        let ([a, b], [there, back]) = (&channel.peers, &channel.sent);
        let sent = |sent: &crate::api::RelayedTraffic| {
            format!("{} in {}", output::bytes(sent.bytes), output::count_of(sent.packets, "packet"))
        };
        let dropped = there.throttled + back.throttled;
        table.row([
            (a.clone(), Tone::Plain),
            (b.clone(), Tone::Plain),
            (sent(there), Tone::Plain),
            (sent(back), Tone::Plain),
            (dropped.to_string(), if dropped > 0 { Tone::Warn } else { Tone::Plain }),
            (ago(Some(channel.age_s)), Tone::Plain),
            (ago(Some(channel.idle_s)), Tone::Plain),
        ]);
    }
    table.render(colour)
}

/// How a path's class is coloured.
pub(super) fn class_tone(class: &str) -> Tone {
    if class == "relay" { Tone::Warn } else { Tone::Good }
}

pub(super) fn counters(config: Option<PathBuf>, format: Format) -> Outcome {
    show(config, format, "/v1/counters", |counters: &Counters, colour| {
        let mut table = Table::new(&["COUNTER", "VALUE"]);
        let mut row = |name: String, value: u64, tone| {
            table.row([(name, Tone::Plain), (value.to_string(), tone)]);
        };
        for (name, value) in [
            ("packets_sent", counters.packets_sent),
            ("packets_received", counters.packets_received),
            ("route_misses", counters.route_misses),
            ("session_failures", counters.session_failures),
            ("fallback_transitions", counters.fallback_transitions),
            ("relay_usage", counters.relay_usage),
        ] {
            row(name.to_owned(), value, Tone::Plain);
        }
        for (name, value) in &counters.more {
            row(name.clone(), *value, Tone::Plain);
        }
        // Reasons that never occurred would only hide those that did.
        for (family, counts) in [("drops", &counters.drops), ("runtime", &counters.runtime)] {
            for (name, value) in counts.iter().filter(|(_, value)| **value > 0) {
                row(format!("{family}.{name}"), *value, Tone::Warn);
            }
        }
        table.render(colour)
    })
}

pub(super) fn snapshot(config: Option<PathBuf>) -> Outcome {
    // JSON for people too: a snapshot is for reports to others.
    show(config, Format::Json, "/v1/snapshot", |_: &Snapshot, _| String::new())
}

/// One line of `vine ping --format json`.
#[derive(Serialize)]
struct PingLine<'a> {
    seq: u32,
    /// Whether the path is another one than that of the answer before.
    switched: bool,
    #[serde(flatten)]
    reply: Option<&'a PingReply>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn ping(args: &PingArgs, config: Option<PathBuf>, format: Format) -> Outcome {
    let client = client(config)?;
    runtime()?.block_on(ping_all(args, &client, format))
}

async fn ping_all(args: &PingArgs, client: &Client, format: Format) -> Outcome {
    let timeout = Duration::from_secs_f64(args.timeout);
    let request = PingRequest {
        target: args.target.clone(),
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1),
    };
    let start = Instant::now();
    let mut rtts = Vec::new();
    let mut former: Option<(String, String)> = None;
    for seq in 1..=args.count {
        sleep_until(start + Duration::from_secs_f64(args.interval) * (seq - 1)).await;
        let (reply, error) = match client.post::<PingReply>("/v1/ping", &request, timeout).await {
            Ok(reply) => (Some(reply), None),
            // Another probe may have an answer, unless it was the question that was wrong.
            Err(ClientError::Refused { status, message, .. }) if status.is_server_error() => (None, Some(message)),
            Err(error) => return Err(error.into()),
        };
        rtts.extend(reply.as_ref().map(|reply| reply.rtt_ms));
        let switched = reply.as_ref().is_some_and(|reply| is_switch(&mut former, reply));
        if format == Format::Json {
            output::json_line(&PingLine { seq, switched, reply: reply.as_ref(), error });
            continue;
        }
        match reply {
            Some(reply) => {
                let PingReply { peer, class, path, rtt_ms, .. } = &reply;
                if switched {
                    output::line(format_args!("now {class} by {path}"));
                }
                let rtt = output::milliseconds(Some(*rtt_ms));
                output::line(format_args!("answer from {peer}: seq={seq} {class} path {path} rtt {rtt}"));
            }
            None => output::line(format_args!("no answer: seq={seq} {}", error.unwrap_or_default())),
        }
    }
    summary(args, &rtts, format)
}

/// Whether this answer took another path than the one before it.
fn is_switch(former: &mut Option<(String, String)>, reply: &PingReply) -> bool {
    let path = (reply.class.clone(), reply.path.clone());
    former.replace(path.clone()).is_some_and(|former| former != path)
}

fn summary(args: &PingArgs, rtts: &[f64], format: Format) -> Outcome {
    let (sent, answered) = (args.count as usize, rtts.len());
    if format == Format::Text {
        let mut text = format!("{sent} sent, {answered} answered");
        if !rtts.is_empty() {
            let (low, high) = rtts.iter().fold((f64::MAX, 0_f64), |(low, high), rtt| (low.min(*rtt), high.max(*rtt)));
            let mean = rtts.iter().sum::<f64>() / answered as f64;
            let ms = |value| output::milliseconds(Some(value));
            text.push_str(&format!(", rtt {} lowest, {} mean, {} highest", ms(low), ms(mean), ms(high)));
        }
        output::line(text);
    }
    if answered == 0 {
        let message = format!("{} did not answer any of {sent} probes", args.target);
        return Err(crate::output::Failure::failed("no_reply", message).said());
    }
    Ok(())
}
