//! TCP through the tunnel.

use vine_tests::lab::{figure, iperf_server, iperf_tcp, vine_binary_is_release};

use crate::pair::{Knows, Pair};

const SECONDS: u32 = 5;
/// A fifth of what it reaches on two cores, and far above what a daemon without batches does.
const FLOOR_BITS_PER_SECOND: f64 = 1.0e9;

#[test]
fn tcp_one_stream() {
    let test = "tcp_one_stream";
    let Some(mut pair) = Pair::new(test, Knows::Both, false) else { return };
    pair.lab.go_first();
    pair.start();
    let _server = iperf_server(pair.a.host());
    for (family, v6) in [("IPv4", false), ("IPv6", true)] {
        let rate = iperf_tcp(pair.b.host(), pair.a.overlay(v6), SECONDS);
        figure(test, &format!("{:.2} Gbit/s, {family}, both daemons and both iperf3 ends on this machine", rate / 1e9));
        if vine_binary_is_release() {
            assert!(rate > FLOOR_BITS_PER_SECOND, "{family}: {rate} bit/s");
        }
    }
}
