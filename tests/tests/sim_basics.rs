use std::time::Duration;
use vine_tests::sim::{Traffic, World};

#[test]
fn hello_world() {
    let mut world = World::of(2, 1);
    world.run_for(Duration::from_secs(1));
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
    let mark = world.now();
    for kind in Traffic::ALL {
        world.send(0, 1, *kind, 1000, 20);
        world.send(1, 0, *kind, 300, 3);
    }
    world.run_for(Duration::from_millis(100));
    println!("{:?} {:?}", world.ledger.tally(0, 1), world.ledger.tally(1, 0));
    world.run_for(Duration::from_secs(100));
    println!("{}", world.network.records.iter().filter(|r| r.at > mark).count());
    for host in &world.hosts {
        println!("{:?}", host.running().counters());
    }
}
