//! TCP throughput by iperf3.

use std::net::IpAddr;
use std::time::Duration;

use super::host::Host;
use super::process::Process;
use super::wait::wait_until;

/// Starts an iperf3 server on a host and waits until it listens.
pub fn iperf_server(host: &Host) -> Process {
    let process = host.spawn("iperf3-server", "iperf3", &["-s", "-p", "5201"]);
    wait_until("iperf3 listens", Duration::from_secs(5), || {
        host.run("ss", &["-Hltn", "sport", "=", ":5201"]).stdout.contains("5201").then_some(())
    });
    process
}

/// One TCP stream for so many seconds; returns the received bits per second.
///
/// # Panics
/// Where iperf3 fails.
pub fn iperf_tcp(host: &Host, target: IpAddr, seconds: u32) -> f64 {
    let args = ["-c", &target.to_string(), "-p", "5201", "-t", &seconds.to_string(), "-J"];
    let done = host.run("iperf3", &args);
    let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_default();
    let rate = json["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.unwrap_or_else(|| panic!("iperf3 to {target}: {} {}", json["error"], done.stderr.trim()))
}
