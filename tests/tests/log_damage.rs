//! A small store and everything that can be done to its files. Nothing that was acknowledged is silently missing: it is there,
//! or the opening or the reading tells file, range and ordinals. See [`vine_tests::disk`].
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::ops::Range;
use std::sync::Mutex;

use vine_core::log::disk::FileId;
use vine_core::log::report::Damage;
use vine_core::log::segment::{ALIGN, FRAMES_AT, HEADER_COPIES};
use vine_tests::disk::{BLOCK, Dice, Op, Position, SECTOR, Setup, SimDisk, Slot};
use vine_tests::sim::{World, in_parallel};

/// What the store holds: three lives, the first of which needs several segments.
const WORKLOAD: &str = "open at=0 read_only=false
    wait us=3000
    append at=0 kind=plain writers=2 count=2 len=60
    wait us=3000
    append at=0 kind=put writers=3 count=1 len=150
    wait us=3000
    append at=0 kind=plain writers=1 count=1 len=2100
    wait us=3000
    append at=0 kind=delete writers=1 count=1 len=0
    wait us=200000
    kill at=0
    open at=0 read_only=false
    wait us=3000
    append at=0 kind=plain writers=3 count=1 len=100
    wait us=3000
    close at=0
    wait us=3000
    open at=0 read_only=false
    wait us=3000
    append at=0 kind=put writers=2 count=1 len=60
    wait us=3000
    append at=0 kind=plain writers=1 count=1 len=40
    wait us=3000";

fn world(workload: &str) -> World {
    world_of(4, workload)
}

fn world_of(segment_kb: u32, workload: &str) -> World {
    let mut world = Setup { seed: 3, segment_kb, max_kb: 0, view_kb: 0, deep: false }.world();
    for line in workload.lines() {
        world.apply_to_stores(&line.trim().parse::<Op>().unwrap());
    }
    world.stores.machines[0].kill(&mut world.stores.shared);
    world
}

fn files(world: &World) -> Vec<(FileId, u64)> {
    world.stores.machines[0].disk.list()
}

/// The last file that holds anything.
fn last_used(world: &World) -> Option<FileId> {
    files(world)
        .into_iter()
        .map(|(file, _)| file)
        .rfind(|file| !world.stores.machines[0].disk.written(*file).is_empty())
}

/// What came of a damaged store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    /// It is open, and all is there.
    Whole,
    /// Something is lost, and that is told.
    Lost,
    /// It is not opened.
    Refused,
}

/// Opens a copy of the store after `damage` and reads all of it; `again` writes to it and opens it once more. The ledger sees
/// to it that what is missing was told.
fn open_damaged(world: &World, again: bool, damage: impl FnOnce(&mut SimDisk)) -> (Came, Vec<Damage>) {
    open_lied(world, again, false, damage)
}

/// The same; where the disk `lied`, an end may be missing that nobody tells.
fn open_lied(world: &World, again: bool, lied: bool, damage: impl FnOnce(&mut SimDisk)) -> (Came, Vec<Damage>) {
    let mut world = world.fork();
    damage(&mut world.stores.machines[0].disk);
    world.stores.machines[0].disk.evict();
    world.stores.machines[0].line.lied |= lied;
    world.stores.machines[0].line.rotten = true;
    world.stores.machines[0].line.closed_at = None;
    let had = world.stores.machines[0].line.slots.len();
    if !world.reopen(0, false) {
        return (Came::Refused, Vec::new());
    }
    let report = world.stores.machines[0].store().unwrap().report().unwrap().clone();
    let is_there = |slot: &Slot| matches!(slot, Slot::At(_));
    let whole = world.stores.machines[0].line.slots.iter().filter(|slot| is_there(slot)).count() == had;
    let damage: Vec<_> = report.findings.into_iter().map(|finding| finding.damage).collect();
    let came = if whole { Came::Whole } else { Came::Lost };
    if !again {
        return (came, damage);
    }
    world.apply_to_stores(&"append at=0 kind=put writers=2 count=1 len=30".parse().unwrap());
    world.settle_all(&[0]);
    world.stores.machines[0].kill(&mut world.stores.shared);
    assert!(world.reopen(0, false), "it was opened, and now it is not");
    (came, damage)
}

/// Tries out many damages, and counts what came of them.
fn try_all(count: u64, damaged: impl Fn(u64) -> (Came, Vec<Damage>) + Sync) -> [u64; 3] {
    let counts = Mutex::new([0; 3]);
    in_parallel(0..count, |number| {
        let (came, _) = damaged(number);
        counts.lock().unwrap()[came as usize] += 1;
    });
    let counts = counts.into_inner().unwrap();
    println!("{count} damages: {} whole, {} lost and told, {} refused", counts[0], counts[1], counts[2]);
    counts
}

#[test]
fn every_file_cut_at_every_byte() {
    let world = world(WORKLOAD);
    for (file, len) in files(&world) {
        let last = last_used(&world);
        let [whole, lost, refused] = try_all(len, |len| {
            // A file without a byte is what a crash leaves of one that was just made.
            let lied = len == 0 && Some(file) == last;
            // What is written next meets the same store wherever between two frames it was cut: around their places, and some.
            let again = len % 8 == 3 || (len + 1) % ALIGN <= 2;
            open_lied(&world, again, lied, |disk| disk.cut(file, len))
        });
        assert_eq!(refused, 0, "{file}");
        assert!(whole + lost == len, "{file}");
    }
}

#[test]
fn every_bit_flipped() {
    let world = world(WORKLOAD);
    let disk = &world.stores.machines[0].disk;
    let sectors: Vec<_> =
        files(&world).into_iter().flat_map(|(f, _)| disk.written(f).into_iter().map(move |n| (f, n))).collect();
    assert!(sectors.len() > 10, "{sectors:?}");
    let bits = SECTOR * 8;
    let [whole, lost, refused] = try_all(sectors.len() as u64 * bits, |number| {
        let (file, sector) = sectors[(number / bits) as usize];
        let bit = number % bits;
        let (came, damage) =
            open_damaged(&world, number % 8 == 3, |disk| disk.rot(file, sector * SECTOR + bit / 8, (bit % 8) as u8));
        assert!(came == Came::Whole || !damage.is_empty(), "{file}, sector {sector}, bit {bit}: lost and not told");
        (came, damage)
    });
    assert!(whole > 0 && lost > 0 && refused == 0);
}

#[test]
fn a_missing_file_is_missed_by_those_behind_it() {
    let world = world(WORKLOAD);
    let files = files(&world);
    assert!(files.len() >= 4, "{files:?}");
    for (index, (file, _)) in files.iter().enumerate() {
        let used = !world.stores.machines[0].disk.written(*file).is_empty();
        let behind = files[index + 1..].iter().any(|(f, _)| !world.stores.machines[0].disk.written(*f).is_empty());
        // That the last one is gone, nobody can know.
        let (came, damage) = open_lied(&world, true, used && !behind, |disk| disk.remove_file(*file));
        if used && behind {
            assert_eq!(came, Came::Lost, "{file}");
            assert!(damage.contains(&Damage::Missing), "{file}: {damage:?}");
        }
    }
}

#[test]
fn files_with_other_names_are_refused() {
    let world = world(WORKLOAD);
    let files = files(&world);
    let bytes = |file: FileId| world.stores.machines[0].disk.bytes(file).unwrap();
    let (first, second) = (files[0].0, files[1].0);
    let swapped = open_damaged(&world, true, |disk| {
        disk.put_file(first, &bytes(second));
        disk.put_file(second, &bytes(first));
    });
    assert_eq!(swapped.0, Came::Refused, "swapped");
    let doubled = open_damaged(&world, true, |disk| disk.put_file(FileId(77), &bytes(second)));
    assert_eq!(doubled.0, Came::Refused, "doubled");
}

#[test]
fn a_file_of_another_identity_is_refused() {
    let workload = format!(
        "{}\n{}",
        WORKLOAD,
        "open at=1 read_only=false\nwait us=3000\nappend at=1 kind=plain writers=1 count=1 len=9\nwait us=3000\nkill at=1"
    );
    let world = world(&workload);
    let other = world.stores.machines[1].disk.bytes(FileId(0)).unwrap();
    for (file, _) in files(&world) {
        assert_eq!(open_damaged(&world, true, |disk| disk.put_file(file, &other)).0, Came::Refused, "{file}");
    }
}

/// One file as it was earlier, among those of today.
#[test]
fn an_older_file_is_told() {
    let today = world(WORKLOAD);
    let lines: Vec<&str> = WORKLOAD.lines().collect();
    for cut in (3..lines.len()).step_by(2) {
        let yesterday = world(&lines[..cut].join("\n"));
        for (file, _) in files(&yesterday) {
            let old = yesterday.stores.machines[0].disk.bytes(file).unwrap();
            // If it was the last file, nothing behind it knows better.
            let lied = last_used(&today) <= Some(file);
            open_lied(&today, true, lied, |disk| disk.put_file(file, &old));
        }
    }
}

/// All files as they were earlier: a store like any other, whose next log is a second successor.
#[test]
fn an_older_backup_is_a_store() {
    let lines: Vec<&str> = WORKLOAD.lines().collect();
    for cut in 3..lines.len() {
        let mut script = lines[..cut].join("\n");
        script += "\nbackup at=0\n";
        script += &lines[cut..].join("\n");
        script += "\nrestore at=0\nopen at=0 read_only=false\nwait us=3000\nappend at=0 kind=put writers=2 count=1 len=20\nwait us=3000";
        let mut world = world(&script);
        assert!(world.reopen(0, false));
        assert!(world.stores.machines[0].store().unwrap().report().unwrap().is_sound());
    }
}

/// Sectors of zeros, and of noise.
#[test]
fn sectors_lost_in_every_place() {
    let world = world(WORKLOAD);
    let disk = &world.stores.machines[0].disk;
    let sectors: Vec<_> =
        files(&world).into_iter().flat_map(|(f, _)| disk.written(f).into_iter().map(move |n| (f, n))).collect();
    let last = sectors.iter().map(|(file, _)| *file).max();
    try_all(2 * sectors.len() as u64, |number| {
        let (file, sector) = sectors[(number / 2) as usize];
        // Zeros at the end look like what was never written.
        let lied = number % 2 == 0 && Some(file) == last;
        let mut dice = Dice::new(number);
        open_lied(&world, true, lied, |disk| {
            for offset in sector * SECTOR..(sector + 1) * SECTOR {
                disk.overwrite(file, offset, if number % 2 == 0 { 0 } else { dice.any() as u8 });
            }
        })
    });
}

/// The disk does not read a block, or the first two: whoever reads gets all ops that lie elsewhere, whoever writes does too, or is
/// told where it would take more than what is left. So it is wherever the store ended, and in short segments and longer ones.
#[test]
fn blocks_that_cannot_be_read_cost_what_is_in_them() {
    let lines: Vec<&str> = WORKLOAD.lines().collect();
    let ends: Vec<usize> = (4..=lines.len()).filter(|end| lines[end - 1].contains("wait")).collect();
    let worlds: Vec<(u32, usize)> = [4, 32].into_iter().flat_map(|kb| ends.iter().map(move |end| (kb, *end))).collect();
    let counts = Mutex::new([0; 3]);
    in_parallel(0..worlds.len() as u64, |number| {
        let (segment_kb, end) = worlds[number as usize];
        let world = world_of(segment_kb, &lines[..end].join("\n"));
        for (file, len) in files(&world) {
            let each = (0..len / BLOCK).map(|number| number * BLOCK..(number + 1) * BLOCK);
            for range in each.chain(std::iter::once(0..2 * BLOCK)) {
                for read_only in [true, false] {
                    let case = format!("segments of {segment_kb} KiB, the first {end} lines, {file}, bytes {range:?}");
                    let outcome = open_unreadable(&world, file, &range, read_only, &case);
                    counts.lock().unwrap()[outcome as usize] += 1;
                }
            }
        }
    });
    let [whole, lost, refused] = counts.into_inner().unwrap();
    println!("{whole} whole, {lost} lost and told, {refused} refused");
    assert!(whole > lost && lost > refused && refused > 0);
}

/// Opens a store of whose disk these blocks of a file cannot be read.
fn open_unreadable(world: &World, file: FileId, range: &Range<u64>, read_only: bool, case: &str) -> Came {
    const GENESIS: u64 = 192;
    let is_refused = !read_only && takes_what_is_unreadable(world, file, range);
    let had = world.stores.machines[0].line.slots.len();
    let mut world = world.fork();
    let disk = &mut world.stores.machines[0].disk;
    disk.lose_blocks(file, range.clone());
    let changes = disk.changes();
    let is_open = world.reopen(0, read_only);
    assert_eq!(is_open, !is_refused, "{case}, read only: {read_only}");
    let (line, disk) = (&world.stores.machines[0].line, &world.stores.machines[0].disk);
    if !is_open || read_only {
        assert_eq!(
            disk.changes(),
            changes,
            "{case}: {} and something was written",
            if is_open { "read" } else { "refused" }
        );
    }
    if !is_open {
        return Came::Refused;
    }
    // The block of the first copy is written whole from the second one: the disk puts it elsewhere.
    let is_repaired = *range == (0..BLOCK) && !disk.written(file).is_empty();
    assert!(read_only || !is_repaired || !disk.has_lost_blocks(), "{case}: the header is not repaired");
    let without_genesis: Vec<_> = (0..line.slots.len() as u64)
        .filter(|ordinal| line.expected(*ordinal).is_some_and(|position: Position| position.1 == 0))
        .filter(|ordinal| line.placed(*ordinal).is_some_and(|placed| placed.touches(file, range, GENESIS)))
        .filter_map(|ordinal| line.expected(ordinal).map(|(log, _)| log))
        .collect();
    let mut came = Came::Whole;
    // Behind the last one there may have been others, for all that the store knows.
    for ordinal in 0..had as u64 {
        let is_hit = line.placed(ordinal).is_some_and(|placed| placed.touches(file, range, 0));
        let is_nobodys = line.expected(ordinal).is_some_and(|(log, _)| without_genesis.contains(&log));
        // Without its header nothing of a segment is read.
        let is_headless = HEADER_COPIES.iter().all(|at| range.contains(at));
        let is_in_file = line.placed(ordinal).is_some_and(|placed| placed.touches(file, &(0..u64::MAX), 0));
        let may_be_lost = is_hit || is_nobodys || is_headless && is_in_file;
        let is_there = matches!(line.slots.get(ordinal as usize), Some(Slot::At(_)));
        assert!(may_be_lost || is_there, "{case}: ordinal {ordinal} is not there");
        came = if is_there { came } else { Came::Lost };
    }
    came
}

/// Whether an opening that writes cannot do without what the disk does not read.
fn takes_what_is_unreadable(world: &World, file: FileId, range: &Range<u64>) -> bool {
    let [first, second] = HEADER_COPIES;
    let no_copy = range.contains(&first) && range.contains(&second);
    // Whether there are frames in a file that looks like zeros, and has no header, cannot be told.
    let is_used = !world.stores.machines[0].disk.written(file).is_empty();
    no_copy || !is_used && range.end > second
}

/// A block of the disk with a copy of a header in it is lost: the other one serves, and nothing is missing.
#[test]
fn a_lost_block_of_a_header_loses_no_op() {
    let world = world(WORKLOAD);
    let disk = &world.stores.machines[0].disk;
    for (file, _) in files(&world).into_iter().filter(|(file, _)| !disk.written(*file).is_empty()) {
        let (came, damage) = open_damaged(&world, true, |disk| {
            (0..BLOCK).for_each(|offset| disk.overwrite(file, offset, 0));
        });
        assert_eq!((came, &damage[..]), (Came::Whole, &[Damage::HeaderCopy][..]), "{file}");
    }
}

/// Every frame once more behind the last one, as it is: a frame of another place, or of another segment, is none.
#[test]
fn a_frame_in_another_place_is_none() {
    let world = world(WORKLOAD);
    let disk = &world.stores.machines[0].disk;
    let used: Vec<FileId> =
        files(&world).into_iter().map(|(f, _)| f).filter(|f| !disk.written(*f).is_empty()).collect();
    let (before, last) = (used[used.len() - 2], used[used.len() - 1]);
    let block = |file: FileId| disk.bytes(file).unwrap();
    let end = block(last).iter().rposition(|byte| *byte != 0).unwrap() as u64 / 64 * 64 + 64;
    let frames = |damage: &dyn Fn(&mut SimDisk)| {
        let mut world = world.fork();
        damage(&mut world.stores.machines[0].disk);
        world.stores.machines[0].disk.evict();
        // Zeros look like what was never written.
        world.stores.machines[0].line.lied = true;
        assert!(world.reopen(0, true));
        world.stores.machines[0].store().unwrap().report().unwrap().frames
    };
    let as_it_is = frames(&|_| {});
    let put = |disk: &mut SimDisk, at: u64, bytes: &[u8]| {
        (at..).zip(bytes).for_each(|(offset, byte)| disk.overwrite(last, offset, *byte));
    };
    // The first frames of the same segment behind its last one; and all of the segment before in place of its own.
    let own = block(last);
    let at = FRAMES_AT as usize;
    assert_eq!(frames(&|disk| put(disk, end, &own[at..at + 512])), as_it_is, "of another place");
    let (empty, other) = (vec![0; own.len() - at], block(before));
    let other = &other[at..own.len().min(other.len())];
    let replaced = |bytes: &[u8]| {
        frames(&|disk| {
            put(disk, FRAMES_AT, &empty);
            put(disk, FRAMES_AT, bytes);
        })
    };
    assert!(replaced(&[]) < as_it_is);
    assert_eq!(replaced(other), replaced(&[]), "of another segment");
}
