//! A Docker daemon of the test's own, with its own data root and socket.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{eventually, has, is_root, run};

/// A Docker daemon of the test's own.
pub struct Docker {
    daemon: Child,
    directory: tempfile::TempDir,
    more: &'static [&'static str],
}

impl Docker {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more arguments of the daemon.
    pub fn start_with(more: &'static [&'static str]) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let docker = Self { daemon: Self::daemon(directory.path(), more), directory, more };
        docker.wait();
        docker.import_image();
        docker
    }

    /// SIGTERM, and another daemon on the same data.
    pub fn restart(&mut self) {
        run("kill", &["-TERM", &self.daemon.id().to_string()]);
        self.daemon.wait().expect("wait");
        self.daemon = Self::daemon(self.directory.path(), self.more);
        self.wait();
    }

    fn daemon(directory: &Path, more: &[&str]) -> Child {
        let path = |name: &str| directory.join(name).to_str().expect("a path").to_owned();
        let log = std::fs::File::create(path("log")).expect("a file");
        Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "-p", &path("pid")])
            .args(["-H", &format!("unix://{}", path("sock")), "--bip", "198.19.0.1/24"])
            .args(more)
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("dockerd starts")
    }

    fn wait(&self) {
        eventually(60, "dockerd answers", || {
            Command::new("docker").args(["-H", &self.url(), "info"]).output().ok()?.status.success().then_some(())
        });
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    fn import_image(&self) {
        let root = self.directory.path().join("root");
        let bin = root.join("bin");
        std::fs::create_dir_all(&bin).expect("a directory");
        std::fs::create_dir_all(root.join("www")).expect("a directory");
        std::fs::write(root.join("www/index.html"), "hello\n").expect("written");
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for name in ["sh", "httpd", "wget", "nc", "sleep", "ip", "true", "timeout"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).expect("a link");
        }
        let tar = format!("tar -C {} -c . | docker -H {} import - box:1", root.display(), self.url());
        run("sh", &["-c", &tar]);
    }

    pub fn docker(&self, arguments: &[&str]) -> String {
        run("docker", &[&["-H", &self.url()], arguments].concat()).trim().to_owned()
    }

    /// A web server named `name` on `network`; its id.
    pub fn web(&self, name: &str, network: &str, more: &[&str]) -> String {
        let start = ["run", "-d", "--name", name, "--network", network];
        let command = ["box:1", "/bin/httpd", "-f", "-p", "80", "-h", "/www"];
        self.docker(&[&start[..], more, &command].concat())
    }

    /// Waits until a container has ended, as it must.
    pub fn done(&self, name: &str) {
        eventually(120, name, || {
            (self.docker(&["inspect", "-f", "{{.State.Running}}", name]) == "false").then_some(())
        });
        assert_eq!(self.docker(&["inspect", "-f", "{{.State.ExitCode}}", name]), "0", "{name}");
    }

    /// Address of a container on `network`.
    pub fn ip(&self, name: &str, network: &str) -> String {
        let all: Value = serde_json::from_str(&self.docker(&["inspect", name])).expect("JSON");
        all[0]["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().expect("an address").to_owned()
    }

    /// One request from a new container named `client` to `ip`, which lives no longer than that.
    pub fn one_request(&self, client: &str, network: &str, ip: &str) {
        let url = format!("http://{ip}/?{client}");
        let run = ["run", "--rm", "--name", client, "--label", "short=yes", "--network", network];
        self.docker(&[&run[..], &["box:1", "/bin/wget", "-q", "-O", "/dev/null", &url]].concat());
    }

    /// One request from a new container on the host's network to `ip`; its connection lasts a second, so that it is surely seen.
    pub fn slow_request(&self, client: &str, ip: &str) {
        let get = format!("(sleep 2; printf 'GET /?{client} HTTP/1.0\\r\\n\\r\\n'; sleep 1) | nc {ip} 80 >/dev/null");
        self.docker(&["run", "--rm", "--name", client, "--network", "host", "box:1", "/bin/sh", "-c", &get]);
    }

    /// One request from a new container named `client` to `ip`, which is removed after.
    pub fn request(&self, client: &str, network: &str, ip: &str) {
        let get = format!(
            "for i in 1 2 3; do wget -q -O - http://{ip}/index.html >/dev/null && sleep 1 && exit 0; sleep 1; done; exit 1"
        );
        self.docker(&["run", "--rm", "--name", client, "--network", network, "box:1", "/bin/sh", "-c", &get]);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = Command::new("docker").args(["-H", &self.url(), "ps", "-aq"]).output();
        for id in all.map(|all| String::from_utf8_lossy(&all.stdout).into_owned()).unwrap_or_default().lines() {
            let _ = Command::new("docker").args(["-H", &self.url(), "rm", "-f", id]).output();
        }
        let _ = Command::new("docker").args(["-H", &self.url(), "swarm", "leave", "--force"]).output();
        let _ = Command::new("docker").args(["-H", &self.url(), "network", "prune", "-f"]).output();
        let _ = Command::new("kill").args(["-TERM", &self.daemon.id().to_string()]).output();
        let _ = self.daemon.wait();
        let _ = Command::new("ip").args(["link", "del", "docker0"]).output();
    }
}

/// Whether all that a daemon needs is there.
pub fn ready() -> bool {
    is_root() && has("dockerd") && has("docker") && has("busybox")
}
