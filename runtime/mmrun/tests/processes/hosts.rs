//! Two hosts, which are network namespaces with a cable between them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, id};
use std::time::Duration;

use crate::{Running, descendants, good, grid, prepared};

/// Gone with the value.
pub struct Hosts {
    names: [String; 2],
    cables: [String; 2],
    folder: tempfile::TempDir,
}

impl Hosts {
    /// Needs root, and iproute2.
    pub fn new(number: u32) -> Self {
        let name = |end: &str| format!("mm{}{number}{end}", id() % 100_000);
        let (names, cables) = ([name("a"), name("b")], [name("va"), name("vb")]);
        let hosts = Self { names, cables, folder: tempfile::tempdir().expect("a folder") };
        let ([a, b], [va, vb]) = (&hosts.names, &hosts.cables);
        for name in &hosts.names {
            ip(&format!("netns add {name}"));
        }
        ip(&format!("link add {va} netns {a} type veth peer name {vb} netns {b}"));
        for (i, (name, cable)) in hosts.names.iter().zip(&hosts.cables).enumerate() {
            ip(&format!("-n {name} addr add 10.77.0.{}/24 dev {cable}", i + 1));
            ip(&format!("-n {name} link set {cable} up"));
            ip(&format!("-n {name} link set lo up"));
        }
        // What mpirun calls to start its daemon on the other host, in ssh's place.
        let agent = hosts.folder.path().join("agent");
        fs::write(&agent, format!("#!/bin/sh\nshift\nexec ip netns exec {b} sh -c \"$*\"\n")).expect("written");
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("executable");
        hosts
    }

    /// `mpirun` with half of the ranks on each host.
    pub fn mpirun(&self, folder: &Path, ranks: usize, args: &str) -> Command {
        let half = ranks / 2;
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.names[0],
            "mpirun",
            "--host",
            &format!("10.77.0.1:{half},10.77.0.2:{half}"),
        ]);
        command.args(["--mca", "plm_rsh_agent", &self.folder.path().join("agent").to_string_lossy()]);
        command.args(["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "10.77.0.0/24"]);
        command.args(["--mca", "oob_tcp_if_include", "10.77.0.0/24"]);
        command.args(["--wdir", &folder.to_string_lossy(), "-n", &ranks.to_string(), env!("CARGO_BIN_EXE_mmrun")]);
        prepared(command, folder, args)
    }

    /// Cuts the cable.
    fn cut(&self) {
        ip(&format!("-n {} link set {} down", self.names[1], self.cables[1]));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // A daemon behind the cut would live on; what is left otherwise is a namespace without use.
            if let Ok(pids) = Command::new("ip").args(["netns", "pids", name]).output() {
                let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
                for pid in pids.split_whitespace() {
                    let _ = Command::new("kill").args(["-KILL", pid]).status();
                }
            }
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).output().expect("ip runs: scripts/setup-mpi.sh installs it");
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {args}: {why} (these tests make network namespaces, which takes root)");
}

#[test]
fn two_hosts_give_what_threads_give() {
    let (place, hosts) = (grid(), Hosts::new(0));
    place.good("plan.bin --steps 5 --outputs a.safetensors --emit grads,params");
    good(&mut hosts.mpirun(place.0.path(), 4, "plan.bin --steps 5 --outputs b.safetensors --emit grads,params"));
    let read = |name| fs::read(place.path(name)).expect(name);
    assert_eq!(read("a.safetensors"), read("b.safetensors"));
}

#[test]
fn a_host_that_is_cut_off_is_named() {
    let (place, hosts) = (grid(), Hosts::new(1));
    let running = Running::start(&mut hosts.mpirun(place.0.path(), 4, "plan.bin --steps 1000000"));
    let start = std::time::Instant::now();
    // The daemon of the other host is a child of the agent, so that all ranks are below this process.
    while descendants(running.child.id()).len() < 4 && start.elapsed() < crate::PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let pids = descendants(running.child.id());
    hosts.cut();
    // On either side of the cut, nobody waits for ever.
    let start = std::time::Instant::now();
    while pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        assert!(start.elapsed() < crate::PATIENCE, "a rank goes on");
        std::thread::sleep(Duration::from_millis(100));
    }
    // mpirun itself may wait for its daemon behind the cut; that is not ours to end well.
    let told = running.put_down();
    assert!(told.contains("gave no sign for 8 s: stopped, starved or cut off"), "{told}");
}
