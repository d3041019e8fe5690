//! Network namespaces, and the wires between them, by the kernel's own interfaces.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::sync::mpsc;
use std::thread::JoinHandle;

use futures_util::TryStreamExt as _;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use super::broken;
use crate::output::{Failure, Outcome};

/// Name of the bridge that joins the namespaces.
const BRIDGE: &str = "br0";
/// Name of a namespace's only wire.
pub(super) const WIRE: &str = "eth0";

/// Moves this process, which must have no other thread yet, away from the host's network: as root directly, otherwise as
/// the root of a user namespace of its own.
pub(super) fn leave_the_host() -> Outcome {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    if rustix::process::geteuid().is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(|error| {
        let message = format!(
            "cannot make network namespaces: {error}; run this as root, or allow user namespaces; `vine demo` needs neither"
        );
        Failure::failed("permission", message)
    })?;
    // user_namespaces(7): without the first line an unprivileged process may not write the last.
    let maps = [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))];
    for (file, text) in maps {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| broken(format_args!("{file}: {error}")))?;
    }
    Ok(())
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace: it exists as long as the thread in it, or a process that was started there.
pub(super) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    file: File,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new namespace with its loopback up.
    pub(super) fn create(name: &str) -> Outcome<Namespace> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (entered, enter) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from);
            let opened = made.and_then(|()| File::open("/proc/thread-self/ns/net"));
            if entered.send(opened).is_ok() {
                queue.iter().for_each(|job| job());
            }
        });
        let thread = thread.map_err(broken)?;
        let file = enter.recv().map_err(broken)?.map_err(broken)?;
        let namespace = Namespace { jobs: Some(jobs), file, thread: Some(thread) };
        namespace.configure(async |handle| up(&handle, "lo").await)?;
        Ok(namespace)
    }

    /// Runs `job` inside: sockets that it opens and processes that it starts stay there.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || {
            // Whoever asked waits for the answer below.
            let _ = done.send(job());
        });
        let jobs = self.jobs.as_ref().ok_or_else(|| broken("a namespace that has ended"))?;
        jobs.send(job).map_err(|_| broken("a namespace that has ended"))?;
        result.recv().map_err(broken)
    }

    /// Changes the namespace's interfaces.
    pub(super) fn configure<F>(&self, change: F) -> Outcome
    where
        F: AsyncFnOnce(Handle) -> Outcome + Send + 'static,
    {
        self.run(move || netlink(change))?
    }

    /// Takes an address from the wire, and gives it another one.
    pub(super) fn readdress(&self, remove: Option<IpAddr>, add: (IpAddr, u8)) -> Outcome {
        self.configure(async move |handle| {
            let index = index_of(&handle, WIRE).await?;
            // In this order: with the first address of a network the kernel may remove the others of it.
            if let Some(gone) = remove {
                let old = address(&handle, index, gone).await?;
                handle.address().del(old).execute().await.map_err(broken)?;
            }
            handle.address().add(index, add.0, add.1).execute().await.map_err(broken)?;
            up(&handle, WIRE).await
        })
    }

    /// Names of the interfaces inside.
    pub(super) fn interfaces(&self) -> Outcome<Vec<String>> {
        let table = self.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?.map_err(broken)?;
        Ok(table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Joins the namespaces by a bridge in the namespace of this thread; each has its end as [`WIRE`].
pub(super) fn join(namespaces: &[&Namespace]) -> Outcome {
    let files: Vec<_> = namespaces.iter().map(|namespace| namespace.file.as_raw_fd()).collect();
    netlink(async move |handle| {
        handle.link().add(LinkBridge::new(BRIDGE).build()).execute().await.map_err(broken)?;
        let bridge = index_of(&handle, BRIDGE).await?;
        for (number, file) in files.into_iter().enumerate() {
            let port = format!("port{number}");
            let end = format!("end{number}");
            handle.link().add(LinkVeth::new(&port, &end).build()).execute().await.map_err(broken)?;
            let index = index_of(&handle, &end).await?;
            let change = LinkUnspec::new_with_index(index).name(WIRE).setns_by_fd(file).build();
            handle.link().set(change).execute().await.map_err(broken)?;
            let index = index_of(&handle, &port).await?;
            let plugged = LinkUnspec::new_with_index(index).controller(bridge).up().build();
            handle.link().set(plugged).execute().await.map_err(broken)?;
        }
        Ok(())
    })
}

/// Runs `change` with a netlink connection of this thread's namespace.
fn netlink(change: impl AsyncFnOnce(Handle) -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(broken)?;
        let connection = tokio::spawn(connection);
        let result = change(handle).await;
        connection.abort();
        result
    })
}

async fn index_of(handle: &Handle, name: &str) -> Outcome<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.map_err(broken)?;
    link.map(|link| link.header.index).ok_or_else(|| broken(format_args!("there is no interface {name}")))
}

async fn up(handle: &Handle, name: &str) -> Outcome {
    let index = index_of(handle, name).await?;
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.map_err(broken)
}

/// The kernel's entry of an address.
async fn address(handle: &Handle, index: u32, ip: IpAddr) -> Outcome<AddressMessage> {
    let mut found = handle.address().get().set_link_index_filter(index).set_address_filter(ip).execute();
    let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    while let Some(message) = found.try_next().await.map_err(broken)? {
        if message.header.family == family {
            return Ok(message);
        }
    }
    Err(broken(format_args!("there is no address {ip}")))
}
