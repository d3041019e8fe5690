//! The laboratory itself: without vine, so that a fault of the tools is not taken for one of the daemon.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use vine_tests::lab::{Lab, Ping, first_answer, iperf_server, iperf_tcp, wait_until};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn linked_hosts_reach_each_other_and_nothing_is_left_behind() {
    let Some(lab) = Lab::open("linked_hosts_reach_each_other_and_nothing_is_left_behind") else { return };
    // Names of its own: the next test may have its lab before this one has looked.
    let (a, b) = (lab.host("here"), lab.host("there"));
    lab.link(&a, &["192.0.2.1/24", "2001:db8::1/64"], &b, &["192.0.2.2/24", "2001:db8::2/64"]);
    for target in ["192.0.2.2", "2001:db8::2"] {
        let target: IpAddr = target.parse().unwrap();
        assert!(first_answer(&a, target, LIMIT).is_some());
        let ping = Ping::start(&a, target, Duration::from_millis(10));
        let from = SystemTime::now();
        assert!(ping.flows_after(from, LIMIT) < Duration::from_secs(1));
        assert_eq!(ping.finish().1, 0, "no ping was lost");
    }
    let forgotten = b.spawn("forgotten", "ping", &["-q", "192.0.2.1"]);
    let (pid, namespace, dir) = (forgotten.pid(), a.namespace().to_owned(), a.dir().to_owned());
    std::mem::forget(forgotten);
    assert!(Path::new("/run/netns").join(&namespace).exists());
    drop(lab);
    assert!(!Path::new("/run/netns").join(&namespace).exists());
    assert!(!dir.exists());
    wait_until("the forgotten process is dead", LIMIT, || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn a_switch_joins_hosts_and_counters_see_what_a_socket_sends() {
    let Some(lab) = Lab::open("a_switch_joins_hosts_and_counters_see_what_a_socket_sends") else { return };
    let switch = lab.switch("sw");
    let (a, b) = (lab.host("a"), lab.host("b"));
    lab.plug(&a, &["192.0.2.1/24"], &switch);
    lab.plug(&b, &["192.0.2.2/24"], &switch);
    let to: SocketAddr = "192.0.2.2:4100".parse().unwrap();
    let receiver = b.udp_socket(to);
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let counter = a.count_udp(to);
    let sender = a.udp_socket("192.0.2.1:9".parse().unwrap());
    sender.send_to(b"one", to).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"one"[..], "192.0.2.1:9".parse().unwrap()));
    assert_eq!((counter.sent(), counter.received()), (1, 0));
    receiver.send_to(b"two", from).unwrap();
    wait_until("the answer is counted", LIMIT, || (counter.received() == 1).then_some(()));
}

#[test]
fn iperf_reports_a_rate() {
    let Some(lab) = Lab::open("iperf_reports_a_rate") else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    lab.link(&a, &["192.0.2.1/24"], &b, &["192.0.2.2/24"]);
    let _server = iperf_server(&b);
    assert!(iperf_tcp(&a, "192.0.2.2".parse().unwrap(), 1) > 1e6);
}
