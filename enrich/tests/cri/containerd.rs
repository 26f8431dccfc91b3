//! Debian's containerd with everything of its own, in a network namespace of the test, and pods made over the CRI.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use prost::Message;

use crate::eventually;
use crate::wire::{
    Client, ContainerConfig, ContainerSecurity, ContainerState, CreateContainer, Id, Image, LinuxContainer, LinuxPod,
    List, Namespaces, Nothing, PodConfig, PodMetadata, RunPod, Security, StatusAnswer,
};

/// Two addresses: a third pod gets that of one that is gone.
const RANGE: &str = r#"[[{"subnet":"10.214.0.0/24","rangeStart":"10.214.0.8","rangeEnd":"10.214.0.9"}]]"#;

/// Where Debian's `containernetworking-plugins` are.
pub const PLUGINS: &str = "/usr/lib/cni";

/// Runs a program that must succeed.
/// What it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub struct Containerd {
    directory: PathBuf,
    /// Path to the network namespace that it is in.
    netns: String,
    daemon: RefCell<Child>,
    client: RefCell<Client>,
    attempts: Cell<u32>,
}

/// A pod with its sandbox.
pub struct Pod {
    pub sandbox: String,
    pub ip: String,
    config: PodConfig,
}

impl Containerd {
    /// Starts it with its files in `directory`.
    pub fn start(directory: &Path, netns: &str) -> Self {
        let at = |name: &str| directory.join(name).to_str().expect("a path").to_owned();
        std::fs::create_dir(at("net.d")).expect("a directory");
        let network = format!(
            r#"{{"cniVersion":"1.0.0","name":"podnet","plugins":[{{"type":"bridge","bridge":"cni0","isGateway":true,
                "ipam":{{"type":"host-local","ranges":{RANGE},"dataDir":"{}"}}}}]}}"#,
            at("ipam")
        );
        std::fs::write(at("net.d/10-podnet.conflist"), network).expect("written");
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\n[grpc]\naddress = \"{}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"docker.io/local/box:1\"\n\
             restrict_oom_score_adj = true\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{PLUGINS}\"\n\
             conf_dir = \"{}\"\n",
            at("root"),
            at("state"),
            at("sock"),
            at("net.d")
        );
        std::fs::write(at("containerd.toml"), config).expect("written");
        let (daemon, client) = spawn(directory, netns);
        let containerd = Self {
            directory: directory.to_owned(),
            netns: netns.to_owned(),
            daemon: daemon.into(),
            client: client.into(),
            attempts: Cell::new(0),
        };
        containerd.import_image();
        containerd
    }

    /// SIGTERM, and another one on the same data; pods go on.
    pub fn restart(&self) {
        run("kill", &["-TERM", &self.daemon.borrow().id().to_string()]);
        self.daemon.borrow_mut().wait().expect("wait");
        let (daemon, client) = spawn(&self.directory, &self.netns);
        let _ = self.daemon.replace(daemon).wait();
        self.client.replace(client);
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.directory.join("sock").display())
    }

    /// `local/box:1`: busybox, in the form of `docker save`.
    fn import_image(&self) {
        let make = format!(
            "set -e; cd {}; mkdir -p image/rootfs/bin image/rootfs/www; cp /bin/busybox image/rootfs/bin/; \
             for name in sh httpd wget sleep; do ln -s busybox image/rootfs/bin/$name; done; \
             echo hello > image/rootfs/www/index.html; cd image; tar -C rootfs -cf layer.tar .; \
             sum=$(sha256sum layer.tar | cut -d' ' -f1); \
             echo '{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{\"Cmd\":[\"/bin/sleep\",\"1000000\"]}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:'$sum'\"]}}}}' > config.json; \
             echo '[{{\"Config\":\"config.json\",\"RepoTags\":[\"local/box:1\"],\"Layers\":[\"layer.tar\"]}}]' > manifest.json; \
             tar -cf ../image.tar manifest.json config.json layer.tar; \
             ctr -a ../sock -n k8s.io images import ../image.tar",
            self.directory.display()
        );
        run("sh", &["-c", &make]);
    }

    /// Runs a pod; on the host's network it has no address.
    pub fn pod(&self, name: &str, host_network: bool) -> Pod {
        let network = if host_network { 2 } else { 0 };
        let security = Security { namespaces: Some(Namespaces { network }) };
        let metadata = PodMetadata { name: name.into(), uid: format!("uid-of-{name}"), namespace: "shop".into() };
        let labels = [("app", name), ("io.kubernetes.pod.name", name)];
        let config = PodConfig {
            metadata: Some(metadata),
            log_directory: self.directory.join("log").to_str().expect("a path").to_owned(),
            labels: labels
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect::<HashMap<_, _>>(),
            linux: Some(LinuxPod { security: Some(security) }),
        };
        let client = self.client.borrow();
        // The address of a pod that was removed just now may not be free yet.
        let sandbox = eventually(60, "the pod runs", || {
            let run = client.ask::<_, Id>("RunPodSandbox", RunPod { config: Some(config.clone()) });
            run.inspect_err(|status| eprintln!("{name}: {}", status.message())).ok()
        });
        let status: StatusAnswer = client.ask("PodSandboxStatus", sandbox.clone()).expect("a status");
        let network = Id::decode(status.status.expect("a status").network.as_slice()).expect("a network");
        Pod { sandbox: sandbox.id, ip: network.id, config }
    }

    /// Starts a container in a pod; its id.
    pub fn container(&self, pod: &Pod, name: &str, command: &[&str]) -> String {
        let client = self.client.borrow();
        let attempt = self.attempts.get() + 1;
        self.attempts.set(attempt);
        let namespaces = pod.config.linux.clone().and_then(|linux| linux.security).and_then(|own| own.namespaces);
        let config = ContainerConfig {
            // Attempts of one name differ in the field that is left out here: names do.
            metadata: Some(Id { id: name.to_owned() }),
            image: Some(Image { image: "docker.io/local/box:1".into() }),
            command: command.iter().map(|&part| part.to_owned()).collect(),
            linux: Some(LinuxContainer { security: Some(ContainerSecurity { namespaces }) }),
        };
        let create =
            CreateContainer { sandbox: pod.sandbox.clone(), config: Some(config), pod: Some(pod.config.clone()) };
        let container: Id = client.ask("CreateContainer", create).expect("a container");
        client.ask::<_, Nothing>("StartContainer", container.clone()).expect("it starts");
        container.id
    }

    /// A web server in the pod.
    pub fn serve(&self, pod: &Pod) -> String {
        self.container(pod, "web", &["/bin/httpd", "-f", "-p", "80", "-h", "/www"])
    }

    /// A container that makes one request, and its end.
    pub fn request(&self, pod: &Pod, ip: &str, what: &str) {
        // Whoever has the address now has another link-layer address, which is noticed after half a minute.
        let get = format!(
            "i=0; while [ $i -lt 40 ]; do /bin/busybox timeout 3 wget -q -O /dev/null http://{ip}/?{what} && exit 0; \
             i=$((i+1)); sleep 1; done; exit 1"
        );
        let id = self.container(pod, what, &["/bin/sh", "-c", &get]);
        let client = self.client.borrow();
        eventually(150, "the request ends", || {
            let status: ContainerState = client.ask("ContainerStatus", Id { id: id.clone() }).ok()?;
            (status.status?.state == 2).then_some(())
        });
    }

    /// Process of a pod's sandbox.
    pub fn pid(&self, pod: &Pod) -> u32 {
        let socket = self.directory.join("sock");
        let socket = socket.to_str().expect("a path");
        let tasks = run("ctr", &["-a", socket, "-n", "k8s.io", "tasks", "ls"]);
        let line = tasks.lines().find_map(|line| line.strip_prefix(&pod.sandbox)).expect("its task");
        line.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a process")
    }

    /// Ends and removes a container.
    pub fn end_container(&self, id: &str) {
        let client = self.client.borrow();
        let id = || Id { id: id.to_owned() };
        client.ask::<_, Nothing>("StopContainer", id()).expect("it stops");
        client.ask::<_, Nothing>("RemoveContainer", id()).expect("it is removed");
    }

    /// Ends and removes a pod.
    pub fn end(&self, pod: &Pod) {
        let client = self.client.borrow();
        let id = || Id { id: pod.sandbox.clone() };
        client.ask::<_, Nothing>("StopPodSandbox", id()).expect("it stops");
        client.ask::<_, Nothing>("RemovePodSandbox", id()).expect("it is removed");
    }
}

fn spawn(directory: &Path, netns: &str) -> (Child, Client) {
    let log =
        std::fs::File::options().create(true).append(true).open(directory.join("containerd.log")).expect("a file");
    let daemon = Command::new("nsenter")
        .arg(format!("--net={netns}"))
        .args(["containerd", "--config"])
        .arg(directory.join("containerd.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("containerd starts");
    let client = eventually(60, "containerd answers", || Client::connect(&directory.join("sock")));
    (daemon, client)
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let client = self.client.borrow();
        let pods = client.ask::<_, List>("ListPodSandbox", Nothing {}).unwrap_or_default();
        for pod in pods.items {
            let _ = client.ask::<_, Nothing>("StopPodSandbox", pod.clone());
            let _ = client.ask::<_, Nothing>("RemovePodSandbox", pod);
        }
        let mut daemon = self.daemon.borrow_mut();
        let _ = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).output();
        let _ = daemon.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.join("containerd.log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("containerd:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        for mount in ["state", "root"] {
            let _ = Command::new("umount").args(["-R", "-l"]).arg(self.directory.join(mount)).output();
        }
    }
}
