//! A UDP proxy that delays, loses and queues datagrams; see `vine_tests::lab::proxy`.
//!
//! `udp-proxy LISTEN TARGET [forth|back|both] [delay=MS] [jitter=MS] [loss=PERCENT] [rate=MBIT] [queue=KIB] [reorder=1]...`:
//! what follows `forth` is for datagrams to the target, what follows `back` for those from it; at first it is for both.
//! Prints `ready` when it is.

use std::error::Error;
use std::net::UdpSocket;

use vine_tests::lab::proxy::{Shape, run};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target, words @ ..] = &args[..] else {
        return Err("udp-proxy LISTEN TARGET [forth|back|both] [delay=MS] [jitter=MS] [loss=PERCENT] ...".into());
    };
    let (mut forth, mut back) = (Shape::default(), Shape::default());
    let (mut to_forth, mut to_back) = (true, true);
    for word in words {
        match word.as_str() {
            "forth" => (to_forth, to_back) = (true, false),
            "back" => (to_forth, to_back) = (false, true),
            "both" => (to_forth, to_back) = (true, true),
            word => {
                for (shape, chosen) in [(&mut forth, to_forth), (&mut back, to_back)] {
                    if chosen {
                        shape.take(word)?;
                    }
                }
            }
        }
    }
    let socket = UdpSocket::bind(listen)?;
    println!("ready");
    Ok(run(socket, target.parse()?, forth, back)?)
}
