//! A machine that a pod of another node has its address on: a network namespace with a web server, reached by the node's routes. Only the
//! API server knows of the pod.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::run;

/// The machine; its namespace, link and server are gone when it is dropped.
pub struct Far {
    name: String,
    server: Child,
}

impl Far {
    /// Has the address, and serves `hello` on port 80. Requests from elsewhere come and go by `gateway`, the node's end of the link.
    pub fn start(directory: &Path, ip: &str, gateway: &str) -> Self {
        let name = format!("wtf{}", std::process::id());
        let www = directory.join("www");
        std::fs::create_dir(&www).expect("a directory");
        std::fs::write(www.join("index.html"), "hello\n").expect("written");
        run("ip", &["netns", "add", &name]);
        run("ip", &["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        run("ip", &["address", "add", &format!("{gateway}/24"), "dev", &name]);
        run("ip", &["link", "set", &name, "up"]);
        run("ip", &["-n", &name, "address", "add", &format!("{ip}/24"), "dev", "eth0"]);
        run("ip", &["-n", &name, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &name, "route", "add", "default", "via", gateway]);
        let www = www.to_str().expect("a path");
        let server = Command::new("ip")
            .args(["netns", "exec", &name, "busybox", "httpd", "-f", "-p", "80", "-h", www])
            .stdout(Stdio::null())
            .spawn()
            .expect("ip runs");
        Self { name, server }
    }

    /// A request from here.
    pub fn request(&self, url: &str) {
        run("ip", &["netns", "exec", &self.name, "curl", "-g", "-sS", "--fail", "-m", "5", "-o", "/dev/null", url]);
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
