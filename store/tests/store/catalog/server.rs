//! A PostgreSQL of the test's own, from Debian's package: in a temporary directory, reached over its socket or loopback, gone with
//! the test.
#![allow(dead_code, reason = "each test target uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use wiretag_store::PostgresConfig;

use super::wait::eventually;

/// What may connect, and how.
const ACCESS: &str = "local all careful scram-sha-256\nhostssl all all 127.0.0.1/32 trust\nlocal all all trust\n";

pub(crate) struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts one. `None`: the package is not installed, which is a failure in CI.
    pub(crate) fn start() -> Option<Self> {
        let programs = programs();
        let in_ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
        assert!(programs.is_some() || !in_ci, "CI must have PostgreSQL");
        let Some(programs) = programs else {
            eprintln!("skipped: PostgreSQL is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut own = Self { dir: tempfile::tempdir().unwrap(), programs, port, child: None };
        give(own.dir.path());
        let data = own.data();
        own.run("initdb", &["-D", &data, "-U", "owner", "--auth=trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8"]);
        std::fs::write(own.dir.path().join("data/pg_hba.conf"), ACCESS).unwrap();
        own.make_certificates();
        own.up();
        own.sql(
            "CREATE ROLE wiretag LOGIN; CREATE ROLE careful LOGIN PASSWORD 'correct horse'; CREATE ROLE guest LOGIN",
        );
        own.sql("CREATE DATABASE wiretag OWNER wiretag");
        own.sql("GRANT CREATE ON DATABASE wiretag TO careful");
        Some(own)
    }

    /// Over the socket, without a password.
    pub(crate) fn config(&self) -> PostgresConfig {
        self.config_of("wiretag")
    }

    pub(crate) fn config_of(&self, user: &str) -> PostgresConfig {
        PostgresConfig::new(&self.url(user), None).unwrap()
    }

    pub(crate) fn url(&self, user: &str) -> String {
        Self::url_at(user, self.dir.path(), self.port)
    }

    pub(crate) fn url_at(user: &str, socket: &Path, port: u16) -> String {
        format!("postgres://{user}@localhost:{port}/wiretag?host={}", socket.display())
    }

    /// Over loopback, with TLS.
    pub(crate) fn tls_url(&self, parameters: &str) -> String {
        format!("postgres://wiretag@localhost:{}/wiretag?{parameters}", self.port)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// Of who signed the server's certificate, and of another.
    pub(crate) fn authorities(&self) -> (PathBuf, PathBuf) {
        (self.dir.path().join("ca.pem"), self.dir.path().join("other.pem"))
    }

    /// Starts the server, and waits until it answers.
    pub(crate) fn up(&mut self) {
        let port = self.port.to_string();
        let socket = self.dir.path().to_string_lossy().into_owned();
        let ssl = |name: &str, file: &str| format!("{name}={socket}/{file}");
        let mut command = self.as_owner("postgres");
        command.args(["-D", &self.data(), "-k", &socket, "-h", "127.0.0.1", "-p", &port, "-F"]);
        command.args([
            "-c",
            "ssl=on",
            "-c",
            &ssl("ssl_cert_file", "server.pem"),
            "-c",
            &ssl("ssl_key_file", "server.key"),
        ]);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(self.dir.path().join("log")).unwrap());
        self.child = Some(command.spawn().unwrap());
        eventually(30, "PostgreSQL answers", || {
            let asked =
                Command::new(self.programs.join("pg_isready")).args(["-q", "-h", &socket, "-p", &port]).status();
            asked.unwrap().success().then_some(())
        });
    }

    /// As after a loss of power: nothing is written, connections break.
    pub(crate) fn crash(&mut self) {
        self.down("-QUIT");
    }

    /// As `systemctl stop` does it.
    pub(crate) fn stop(&mut self) {
        self.down("-INT");
    }

    fn down(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
            assert!(killed.success());
            child.wait().unwrap();
        }
    }

    /// Runs a statement as the owner of everything; what it prints.
    pub(crate) fn sql(&self, statement: &str) -> String {
        let socket = self.dir.path().to_string_lossy().into_owned();
        let database = if statement.starts_with("CREATE ROLE") || statement.starts_with("CREATE DATABASE") {
            "postgres"
        } else {
            "wiretag"
        };
        let port = self.port.to_string();
        let target = ["-h", &socket, "-p", &port, "-U", "owner", "-d", database, "-qAt", "-v", "ON_ERROR_STOP=1"];
        let output = Command::new(self.programs.join("psql")).args(target).args(["-c", statement]).output().unwrap();
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn data(&self) -> String {
        self.dir.path().join("data").to_string_lossy().into_owned()
    }

    /// The server refuses to be root's; it ends with the test.
    fn as_owner(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if is_root() {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        }
        command.arg(self.programs.join(program)).current_dir("/").env_clear().env("LC_ALL", "C.UTF-8");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.as_owner(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// An authority, a certificate of `localhost` that it signed, and an authority that signed nothing.
    fn make_certificates(&self) {
        let openssl = |arguments: &str| {
            let output =
                Command::new("openssl").args(arguments.split(' ')).current_dir(self.dir.path()).output().unwrap();
            assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj";
        for name in ["ca", "other"] {
            openssl(&format!("req -x509 -days 30 {new} /CN={name} -keyout {name}.key -out {name}.pem"));
        }
        openssl(&format!("req {new} /CN=localhost -keyout server.key -out server.csr"));
        std::fs::write(self.dir.path().join("names"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            "x509 -req -days 30 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out server.pem",
        );
        for file in ["server.key", "server.pem"] {
            give(&self.dir.path().join(file));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }
}

/// To the user whose server it is.
fn give(path: &Path) {
    if is_root() {
        assert!(Command::new("chown").arg("postgres:postgres").arg(path).status().unwrap().success());
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Where the newest release keeps its programs.
fn programs() -> Option<PathBuf> {
    let releases = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let dirs = releases.filter_map(|release| Some(release.ok()?.path().join("bin")));
    let number = |dir: &PathBuf| dir.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    dirs.filter(|dir| dir.join("initdb").exists()).max_by_key(number)
}
