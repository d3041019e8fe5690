//! What happens to a machine happens to its node and to its store. See [`vine_tests::whole`].
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::time::Duration;

use vine_tests::sim::{World, in_parallel};
use vine_tests::whole::{Op, Script, Setup};
use vine_tests::{disk, sim};

/// Two hosts with stores, which have met.
fn world() -> World {
    let stores = disk::Setup { seed: 5, segment_kb: 64, max_kb: 0, view_kb: 0, deep: false };
    let mut world = Setup { network: sim::Setup::pair(5), stores: Some(stores) }.world();
    world.time_to_meet(0, 1, Duration::from_secs(2));
    world
}

fn play(world: &mut World, text: &str) {
    for line in text.lines() {
        world.apply_to_machines(&line.trim().parse().unwrap());
    }
}

/// How many ops of a machine's store are there for certain.
fn certain(world: &World, number: usize) -> usize {
    world.stores.machines[number].line.slots.len()
}

fn times(world: &World, label: &str) -> u64 {
    world.coverage.times(label) + world.stores.shared.coverage.times(label)
}

/// Neither half of a machine has a process.
fn is_off(world: &World, number: usize) -> bool {
    assert_eq!(world.hosts[number].node.is_none(), !world.stores.machines[number].is_on());
    world.hosts[number].node.is_none()
}

/// Both halves of both machines do their work.
fn is_well(world: &mut World) -> bool {
    let before = [0, 1].map(|number| certain(world, number));
    play(world, "append at=0 kind=put writers=2 count=1 len=9\nappend at=1 kind=put writers=2 count=1 len=9");
    world.time_to_meet(0, 1, Duration::from_secs(5));
    world.settle_all(&[0, 1]);
    [0, 1].map(|number| certain(world, number)) == before.map(|count| count + 2)
}

#[test]
fn a_process_that_stands_still_drives_neither_half() {
    for (stop, go_on) in
        [("stall host=0 on=true", "stall host=0 on=false"), ("sleep host=0 on=true", "sleep host=0 on=false")]
    {
        let mut world = world();
        play(&mut world, &format!("append at=0 kind=plain writers=3 count=2 len=100\n{stop}"));
        let effects = world.stores.machines[0].disk.effects();
        let sent = world.sent_since(0, world.now()).count();
        play(
            &mut world,
            "append at=0 kind=plain writers=3 count=2 len=100
            open at=0 read_only=true
            close at=0
            append at=1 kind=plain writers=1 count=1 len=100
            wait us=5000000",
        );
        assert_eq!((certain(&world, 0), certain(&world, 1)), (0, 1));
        assert_eq!(world.stores.machines[0].disk.effects(), effects);
        assert_eq!(world.sent_since(0, world.now() - Duration::from_secs(5)).count(), sent);
        play(&mut world, &format!("{go_on}\nwait us=100000"));
        assert_eq!(certain(&world, 0), 6, "what was taken before is done, and nothing else was taken");
        assert_eq!(times(&world, "stall: the disk waited for its process"), 1);
        assert!(is_well(&mut world));
    }
}

#[test]
fn a_shutdown_ends_the_node_and_closes_the_store() {
    let mut world = world();
    play(&mut world, "append at=0 kind=put writers=3 count=1 len=100\nshutdown host=0");
    assert!(world.hosts[0].node.is_none() && world.stores.machines[0].is_open());
    play(&mut world, "wait us=1000000");
    assert!(!world.stores.machines[0].is_open());
    assert_eq!((certain(&world, 0), times(&world, "event: Closed")), (3, 1));
    assert_eq!(times(&world, "killed with appends waiting"), 0);
    play(&mut world, "start host=0 clock_ms=0\nwait us=1000000");
    assert_eq!((certain(&world, 0), times(&world, "the same state after reopening")), (3, 1));
    assert!(is_well(&mut world));
}

#[test]
fn who_starts_does_not_wait_for_a_closing() {
    let mut world = world();
    let text = "append at=0 kind=put writers=3 count=1 len=100\nshutdown host=0\nstart host=0 clock_ms=0";
    play(&mut world, text);
    assert_eq!(times(&world, "closing cut short by a start"), 1);
    assert_eq!(times(&world, "killed with appends waiting"), 1);
    play(&mut world, "wait us=1000000");
    assert!(is_well(&mut world));
}

#[test]
fn a_crash_and_a_kill_take_both_halves() {
    for (end, keeps) in [("crash host=0", false), ("crash at=0", false), ("kill at=0", true)] {
        let mut world = world();
        play(
            &mut world,
            "append at=0 kind=put writers=3 count=1 len=100
            wait us=1000000
            slow at=0 us=10000
            append at=0 kind=put writers=3 count=1 len=100
            send from=0 to=1 kind=udp4 len=100 count=3
            wait us=1000",
        );
        let unsynced = |world: &World| world.stores.machines[0].disk.unsynced().len();
        let before = unsynced(&world);
        play(&mut world, end);
        assert!(is_off(&world, 0), "{end}");
        assert_eq!(unsynced(&world), if keeps { before } else { 0 }, "{end}");
        assert_eq!(times(&world, "power lost: appends wait and packets are in flight"), u64::from(!keeps));
        play(&mut world, "wait us=3000000\nopen at=0 read_only=false\nwait us=1000000");
        assert!(is_off(&world, 0), "nobody is there to open a store");
        play(&mut world, "start host=0 clock_ms=0\nwait us=1000000");
        assert!(!is_off(&world, 0) && certain(&world, 0) >= 3);
        assert!(is_well(&mut world));
    }
}

#[test]
fn a_store_takes_the_logs_of_those_whom_its_host_allows() {
    let mut world = world();
    let restart = "kill at=1\nstart host=1 clock_ms=0\nwait us=1000000\nimport from=0 to=1\nwait us=1000000";
    play(&mut world, "append at=0 kind=put writers=3 count=1 len=100\nwait us=1000000\nreload host=1 without=0");
    play(&mut world, restart);
    assert_eq!((certain(&world, 1), times(&world, "import refused: NotAMember")), (0, 1));
    play(&mut world, &format!("reload host=1 without=1\n{restart}"));
    assert_eq!((certain(&world, 1), times(&world, "event: Imported")), (3, 1));
    assert_eq!(world.stores.machines[1].config().owner, world.id(1));
    assert!(is_well(&mut world));
}

#[test]
fn both_halves_of_a_machine_have_one_wall_clock() {
    let mut world = world();
    let stamp = |world: &World, number: usize| {
        let view = world.stores.machines[number].store().unwrap().view();
        let stamps = (1..12).filter_map(|key| Some(view.entry(format!("key {key}").as_bytes())?.stamp.0 >> 16));
        stamps.max().unwrap()
    };
    let set =
        "append at=0 kind=put writers=30 count=1 len=1\nappend at=1 kind=put writers=30 count=1 len=1\nwait us=1000000";
    play(&mut world, &format!("clock host=1 ms=5000000\n{set}"));
    assert!((4_990_000..5_010_000).contains(&(stamp(&world, 1) - stamp(&world, 0))));
    play(&mut world, &format!("crash at=0\nstart host=0 clock_ms=8000000\nwait us=1000000\n{set}"));
    let now = world.hosts[0].wall_clock(world.now()).0;
    assert!((now - 10_000..now).contains(&stamp(&world, 0)));
    let time = world.hosts[1].wall_clock(world.now()).0;
    assert!((time - 10_000..time).contains(&stamp(&world, 1)));
}

/// What a node does is not changed by a store beside it: not by a random number, not by a nanosecond.
#[test]
fn the_network_does_not_notice_the_stores() {
    in_parallel(0..60, |seed| {
        let mut script = Script::from_seed(seed);
        // To put a backup back the process is ended, and where there are no stores there is no backup.
        script.ops.retain(|op| !matches!(op, Op::Stores(disk::Op::Restore { .. })));
        let (world, with_stores) = script.play();
        assert!(world.stores.shared.trace.entries() > 0);
        script.setup.stores = None;
        let (world, without) = script.play();
        assert_eq!(world.stores.shared.trace.entries(), 0);
        assert_eq!(with_stores, without, "seed {seed}");
    });
}
