//! Load for `scripts/relay-bench.sh`: UDP datagrams at a rate, as they are or through a TURN server.
//!
//! - `relay-load send TARGET RATE SECONDS SIZE` sends datagrams of so many bytes of payload, RATE a second.
//! - `relay-load turn SERVER TARGET RATE SECONDS SIZE` lets a TURN server relay them.
//! - `relay-load sink ADDRESS SECONDS` takes what comes, so that nobody is told that it is not wanted, and prints how many came.

mod turn;

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Datagrams between two looks at the clock.
const BURST: u64 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (datagram, socket, rate, seconds) = match words[..] {
        ["sink", address, seconds] => return sink(address.parse()?, Duration::from_secs_f64(seconds.parse()?)),
        ["send", target, rate, seconds, size] => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(target)?;
            (vec![0; size.parse()?], socket, rate, seconds)
        }
        ["turn", server, target, rate, seconds, size] => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(server)?;
            turn::allocate(&socket, target.parse()?)?;
            (turn::channel_data(&vec![0; size.parse()?]), socket, rate, seconds)
        }
        _ => return Err("relay-load send|turn|sink ...".into()),
    };
    println!("begins");
    let (rate, duration) = (rate.parse()?, Duration::from_secs_f64(seconds.parse()?));
    let (start, sent) = (Instant::now(), send(&socket, &datagram, rate, duration));
    println!("{sent} {:.3}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Sends a datagram again and again, and returns how often.
fn send(socket: &UdpSocket, datagram: &[u8], rate: u64, duration: Duration) -> u64 {
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < duration {
        let due = start + Duration::from_nanos(sent * 1_000_000_000 / rate.max(1));
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::park_timeout(wait);
            continue;
        }
        for _ in 0..BURST {
            // An error is of an earlier one, or a full queue: a flood does not care.
            let _ = socket.send(datagram);
            sent += 1;
        }
    }
    sent
}

/// Counts what comes to an address.
fn sink(address: SocketAddr, duration: Duration) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind(address)?;
    println!("begins");
    let (start, mut count, mut buffer) = (Instant::now(), 0_u64, [0; 2048]);
    while let Some(left) = duration.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        count += u64::from(socket.recv_from(&mut buffer).is_ok());
    }
    println!("{count}");
    Ok(())
}
