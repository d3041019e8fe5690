//! Pings with the time of every answer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::host::Host;
use super::process::Process;
use super::wait::{poll_until, wait_until};

/// Numbers the runs of this test process, so that each has a log of its own.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// So many answers in a row count as a flow.
const STEADY: usize = 10;

/// One answered ping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reply {
    /// When it came.
    pub at: SystemTime,
    /// Its number, counted from 1.
    pub sequence: u64,
}

/// `ping`, running in a host.
#[derive(Debug)]
pub struct Ping {
    process: Process,
    target: IpAddr,
}

impl Ping {
    /// Starts pinging at an interval. There has to be a route to the target already.
    pub fn start(host: &Host, target: IpAddr, interval: Duration) -> Ping {
        Ping::start_sized(host, target, interval, 56)
    }

    /// As [`Ping::start`], with so many bytes of payload instead of 56.
    pub fn start_sized(host: &Host, target: IpAddr, interval: Duration, payload: u16) -> Ping {
        let label = format!("ping-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let (interval, payload) = (interval.as_secs_f64().to_string(), payload.to_string());
        let args = ["-D", "-n", "-i", &interval, "-s", &payload, &target.to_string()];
        Ping { process: host.spawn(&label, "ping", &args), target }
    }

    /// Every answer so far.
    pub fn replies(&self) -> Vec<Reply> {
        self.process.output().lines().filter_map(parse_reply).collect()
    }

    /// How long after `from` answers flow again: the first one of which the nine that follow were not lost either.
    ///
    /// # Panics
    /// Where there is none by `from + limit`.
    pub fn flows_after(&self, from: SystemTime, limit: Duration) -> Duration {
        let left = limit.saturating_sub(from.elapsed().unwrap_or_default());
        wait_until(&format!("a steady flow of answers from {}", self.target), left, || {
            let replies: Vec<Reply> = self.replies().into_iter().filter(|reply| reply.at > from).collect();
            let steady = |run: &&[Reply]| run.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1);
            let first = replies.windows(STEADY).find(steady)?.first()?;
            first.at.duration_since(from).ok()
        })
    }

    /// The longest time between two answers, of which the later came after `from`.
    pub fn longest_gap(&self, from: SystemTime) -> Duration {
        let replies = self.replies();
        let after = replies.windows(2).filter(|pair| pair[1].at > from);
        after.filter_map(|pair| pair[1].at.duration_since(pair[0].at).ok()).max().unwrap_or_default()
    }

    /// How many pings were lost between the first and the last answer that came after `from`.
    pub fn lost_since(&self, from: SystemTime) -> u64 {
        let replies = self.replies();
        let after: Vec<u64> = replies.iter().filter(|reply| reply.at > from).map(|reply| reply.sequence).collect();
        let (Some(first), Some(last)) = (after.iter().min(), after.iter().max()) else { return 0 };
        last - first + 1 - after.len() as u64
    }

    /// Waits for `count` more answers.
    pub fn wait_for_more(&self, count: usize, limit: Duration) {
        let before = self.replies().len();
        wait_until(&format!("{count} more answers from {}", self.target), limit, || {
            (self.replies().len() >= before + count).then_some(())
        });
    }

    /// Ends the run and returns the answers and how many of the pings before the last answer were lost.
    pub fn finish(mut self) -> (Vec<Reply>, u64) {
        self.process.kill();
        let replies = self.replies();
        let last = replies.last().map_or(0, |reply| reply.sequence);
        let lost = last - replies.len() as u64;
        (replies, lost)
    }
}

/// Pings once at a time until the first answer: for a target to which there may not be a route yet.
/// Returns how long it took, or `None` after `limit`.
pub fn first_answer(host: &Host, target: IpAddr, limit: Duration) -> Option<Duration> {
    let start = Instant::now();
    let target = target.to_string();
    poll_until(limit, || host.run("ping", &["-n", "-q", "-c1", "-W0.1", &target]).ok().then(|| start.elapsed()))
}

/// A line such as `[1795168647.732122] 64 bytes from 10.42.0.1: icmp_seq=1 ttl=64 time=0.138 ms`.
fn parse_reply(line: &str) -> Option<Reply> {
    let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (_, after) = rest.split_once("icmp_seq=")?;
    let (sequence, tail) = after.split_once(' ')?;
    if !tail.contains("time=") || tail.contains("DUP") {
        return None;
    }
    let at = UNIX_EPOCH + Duration::from_secs_f64(time.parse().ok()?);
    Some(Reply { at, sequence: sequence.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_line_is_parsed() {
        let reply = parse_reply("[12.500000] 64 bytes from fd42::2: icmp_seq=7 ttl=64 time=0.138 ms").unwrap();
        assert_eq!(reply, Reply { at: UNIX_EPOCH + Duration::from_millis(12_500), sequence: 7 });
    }

    #[test]
    fn other_lines_are_not_replies() {
        for line in [
            "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.",
            "[12.5] From 10.0.0.1 icmp_seq=7 Destination Host Unreachable",
            "[12.5] no answer yet for icmp_seq=7",
            "[12.5] 64 bytes from 10.0.0.2: icmp_seq=7 ttl=64 time=0.138 ms (DUP!)",
        ] {
            assert_eq!(parse_reply(line), None, "{line}");
        }
    }
}
