//! The demo on real kernels: a network namespace, a TUN device and a daemon a machine, and pings between the kernels.

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::runtime::Runtime;
use vine_core::PeerId;

use super::namespace::{Namespace, join, leave_the_host};
use super::narrator::{Narrator, time};
use super::ping::ping;
use super::{ALPHA, BETA, GAMMA, Machine, NETWORK, PATIENCE, PING_PATIENCE, broken, pairs};
use crate::api::{Peer, Session};
use crate::client::Client;
use crate::output::{Failure, Outcome};

/// Everybody who belongs to this mesh.
const MESH: [Machine; 3] = [ALPHA, BETA, GAMMA];
/// Name of the TUN device in each namespace.
const TUN: &str = "vine0";
/// How often a state that is waited for is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long one ping of a stream is waited for: short, so that the first answer after an outage is noticed soon.
const STREAM_PATIENCE: Duration = Duration::from_millis(50);
/// Pings of each family and direction.
const PINGS: u16 = 5;

pub(super) fn run(narrator: &mut Narrator) -> Outcome {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        let message =
            format!("cannot open /dev/net/tun: {error}; `vine doctor` tells more, and `vine demo` needs none");
        return Err(Failure::failed("tun", message));
    }
    leave_the_host()?;
    let directory = Directory::create()?;
    let mut mesh = Mesh::build(narrator, &directory)?;
    mesh.start(narrator)?;
    mesh.meet(narrator)?;
    mesh.talk(narrator)?;
    mesh.move_beta(narrator)?;
    mesh.crash_gamma(narrator)?;
    mesh.stop(narrator)
}

/// A directory that goes when this does.
struct Directory(PathBuf);

impl Directory {
    fn create() -> Outcome<Directory> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("vine-demo-{}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| broken(format_args!("{}: {error}", path.display())))?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A machine with its namespace, its files and its daemon.
struct Station {
    machine: Machine,
    id: PeerId,
    underlay: IpAddr,
    directory: PathBuf,
    daemon: Option<Child>,
    namespace: Namespace,
}

impl Drop for Station {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Station {
    fn create(machine: Machine, directory: &Directory) -> Outcome<Station> {
        let directory = directory.0.join(machine.name);
        fs::create_dir(&directory).map_err(broken)?;
        let identity = crate::identity_file::create(&directory.join("identity"), false)?;
        let namespace = Namespace::create(machine.name)?;
        let underlay = IpAddr::from([192, 0, 2, machine.number]);
        Ok(Station { machine, id: identity.peer_id(), underlay, directory, daemon: None, namespace })
    }

    fn config(&self) -> PathBuf {
        self.directory.join("vine.toml")
    }

    /// Starts `vine up` inside.
    fn start(&mut self) -> Outcome {
        let program = std::env::current_exe().map_err(broken)?;
        let log = File::options().append(true).create(true).open(self.log()).map_err(broken)?;
        let config = self.config();
        let daemon = self.namespace.run(move || {
            Command::new(program)
                .arg("up")
                .arg("-c")
                .arg(config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::from(log))
                .spawn()
        })?;
        self.daemon = Some(daemon.map_err(broken)?);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Sends the daemon a signal and waits for its end.
    fn end(&mut self, signal: Signal) -> Outcome<Option<i32>> {
        let mut daemon = self.daemon.take().ok_or_else(|| broken("a daemon that was not started"))?;
        let pid = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw).ok_or_else(|| broken("no such process"))?;
        rustix::process::kill_process(pid, signal).map_err(broken)?;
        Ok(daemon.wait().map_err(broken)?.code())
    }

    /// What a daemon that ended early said.
    fn check(&mut self) -> Outcome {
        let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
        match ended {
            None => Ok(()),
            Some(status) => {
                let said = fs::read_to_string(self.log()).unwrap_or_default();
                Err(broken(format_args!("{}'s daemon ended ({status}): {}", self.machine.name, said.trim())))
            }
        }
    }

    /// One ping from this kernel to that of `to`.
    fn ping(&self, to: IpAddr, sequence: u16, timeout: Duration) -> Outcome<Option<Duration>> {
        let from = self.machine.addresses().into_iter().map(|(ip, _)| ip).find(|ip| ip.is_ipv4() == to.is_ipv4());
        let from = from.ok_or_else(|| broken("no address of this family"))?;
        self.namespace.run(move || ping(from, to, sequence, timeout))?.map_err(broken)
    }

    /// Waits until a ping to `to` is answered.
    fn reaches(&self, to: Machine, since: Instant) -> Outcome<Duration> {
        let (target, _) = to.addresses()[0];
        let mut sequence = 1000;
        while since.elapsed() < PATIENCE {
            sequence += 1;
            if self.ping(target, sequence, STREAM_PATIENCE)?.is_some() {
                return Ok(since.elapsed());
            }
        }
        Err(broken(format_args!("{} does not reach {} again", self.machine.name, to.name)))
    }
}

struct Mesh {
    stations: Vec<Station>,
    runtime: Runtime,
}

impl Mesh {
    fn build(narrator: &mut Narrator, directory: &Directory) -> Outcome<Mesh> {
        narrator.chapter("Three machines in network namespaces, joined by a bridge");
        let stations =
            MESH.into_iter().map(|machine| Station::create(machine, directory)).collect::<Outcome<Vec<_>>>()?;
        join(&stations.iter().map(|station| &station.namespace).collect::<Vec<_>>())?;
        for station in &stations {
            station.namespace.readdress(None, (station.underlay, 24))?;
            fs::write(station.config(), configuration(station, &stations)).map_err(broken)?;
            let fingerprint = station.id.fingerprint();
            narrator.says(station.machine.name, format_args!("{fingerprint} at {}", station.underlay));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        Ok(Mesh { stations, runtime })
    }

    fn station(&mut self, machine: Machine) -> Outcome<&mut Station> {
        let found = self.stations.iter_mut().find(|station| station.machine == machine);
        found.ok_or_else(|| broken("a machine that is not there"))
    }

    fn start(&mut self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("`vine up` on each");
        for station in &mut self.stations {
            station.start()?;
            let started = Instant::now();
            while !station.namespace.interfaces()?.iter().any(|name| name == TUN) {
                station.check()?;
                if started.elapsed() > PATIENCE {
                    return Err(broken(format_args!("{} has no {TUN}", station.machine.name)));
                }
                std::thread::sleep(POLL);
            }
            let [(v4, a), (v6, b)] = station.machine.addresses();
            let took = time(started.elapsed());
            narrator.says(station.machine.name, format_args!("has {TUN} with {v4}/{a} and {v6}/{b} after {took}"));
        }
        Ok(())
    }

    /// What the daemon of `from` says about its session with `to`, once it says that they are connected.
    fn session(&mut self, from: Machine, to: Machine) -> Outcome<Session> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let station = self.station(from)?;
            station.check()?;
            let client = Client::new(&station.directory.join("vine.sock"));
            let answer = self.runtime.block_on(async {
                let peers: Vec<Peer> = client.get("/v1/peers").await?;
                let sessions: Vec<Session> = client.get("/v1/sessions").await?;
                Ok::<_, crate::client::ClientError>((peers, sessions))
            });
            if let Ok((peers, sessions)) = answer
                && peers.iter().any(|peer| peer.name == to.name && peer.state == "connected")
                && let Some(session) = sessions.into_iter().find(|session| session.peer == to.name)
            {
                return Ok(session);
            }
            std::thread::sleep(POLL);
        }
        Err(broken(format_args!("{} did not meet {}", from.name, to.name)))
    }

    fn meet(&mut self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("They meet");
        for (a, b) in pairs(MESH) {
            for (from, to) in [(a, b), (b, a)] {
                let session = self.session(from, to)?;
                let path = session.path.unwrap_or_default();
                let rtt = session.rtt_ms.map_or_else(String::new, |ms| format!(", round trip {ms} ms"));
                narrator.says(
                    from.name,
                    format_args!("met {} ({}) by {path}, {}{rtt}", to.name, session.class, session.cipher),
                );
            }
        }
        Ok(())
    }

    fn talk(&mut self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("Their kernels talk through the tunnels");
        for (a, b) in pairs(MESH) {
            for (from, to) in [(a, b), (b, a)] {
                for (address, _) in to.addresses() {
                    let station = self.station(from)?;
                    let mut total = Duration::ZERO;
                    for sequence in 0..PINGS {
                        let rtt = station.ping(address, sequence, PING_PATIENCE)?;
                        total += rtt.ok_or_else(|| broken(format_args!("{address} did not answer {}", from.name)))?;
                    }
                    let mean = time(total / u32::from(PINGS));
                    narrator.says(
                        from.name,
                        format_args!("{PINGS} pings to {address} ({}), all answered, mean {mean}", to.name),
                    );
                }
            }
        }
        Ok(())
    }

    fn move_beta(&mut self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("Beta moves to another address");
        let beta = self.station(BETA)?;
        let (old, new) = (beta.underlay, IpAddr::from([192, 0, 2, 100 + BETA.number]));
        beta.namespace.readdress(Some(old), (new, 24))?;
        beta.underlay = new;
        let moved = Instant::now();
        narrator.says(BETA.name, format_args!("is at {new} instead of {old}"));
        let took = self.station(ALPHA)?.reaches(BETA, moved)?;
        let path = self.session(ALPHA, BETA)?.path.unwrap_or_default();
        if !path.contains(&new.to_string()) {
            return Err(broken(format_args!("alpha still talks to beta by {path}")));
        }
        narrator.says(ALPHA.name, format_args!("reaches it again after {}, by {path}", time(took)));
        Ok(())
    }

    fn crash_gamma(&mut self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("Gamma's daemon is killed and started again");
        let gamma = self.station(GAMMA)?;
        gamma.end(Signal::KILL)?;
        let lost = self.station(ALPHA)?.ping(GAMMA.addresses()[0].0, 999, STREAM_PATIENCE)?;
        if lost.is_some() {
            return Err(broken("a killed daemon's machine answered"));
        }
        narrator.says(GAMMA.name, "was killed, and its machine cannot be reached");
        let started = Instant::now();
        self.station(GAMMA)?.start()?;
        let took = self.station(ALPHA)?.reaches(GAMMA, started)?;
        narrator.says(ALPHA.name, format_args!("reaches it again {} after the new start", time(took)));
        Ok(())
    }

    fn stop(&mut self, narrator: &mut Narrator) -> Outcome {
        narrator.chapter("SIGTERM to each");
        for station in &mut self.stations {
            let code = station.end(Signal::TERM)?;
            let left = station.namespace.interfaces()?;
            if code != Some(0) || left.iter().any(|name| name == TUN) {
                let said = fs::read_to_string(station.log()).unwrap_or_default();
                return Err(broken(format_args!(
                    "{} ended with {code:?} and left {left:?}: {said}",
                    station.machine.name
                )));
            }
            narrator.says(station.machine.name, format_args!("ended in order; {TUN} is gone"));
        }
        narrator.note("all of this happened on real kernels, and was measured as it did");
        Ok(())
    }
}

/// The configuration of a station: everybody else is allowed, and alpha is where all of them begin.
fn configuration(station: &Station, stations: &[Station]) -> String {
    let machine = station.machine;
    let addresses = machine.addresses().map(|(ip, len)| format!("\"{ip}/{len}\"")).join(", ");
    let mut text = format!(
        "[node]\nname = \"{}\"\nnetwork_id = \"{NETWORK}\"\nidentity_path = \"identity\"\nstate_dir = \".\"\n\n[tun]\nname = \"{TUN}\"\naddresses = [{addresses}]\n",
        machine.name
    );
    for other in stations.iter().filter(|other| other.machine != machine) {
        let [v4, v6] = other.machine.prefixes();
        text.push_str(&format!(
            "\n[[allowed_peers]]\nname = \"{}\"\npeer_id = \"{}\"\nprefixes = [\"{v4}\", \"{v6}\"]\n",
            other.machine.name, other.id
        ));
        // The later ones know the earlier ones; nobody needs to know more.
        if other.machine.number < machine.number {
            let underlay = other.underlay;
            text.push_str(&format!(
                "\n[[bootstrap_peers]]\npeer_id = \"{}\"\naddress = \"udp://{underlay}:4100\"\n",
                other.id
            ));
        }
    }
    text
}
