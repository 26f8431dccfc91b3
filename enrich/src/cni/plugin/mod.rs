//! The chained CNI plugin (specification 0.3.1 to 1.1.0): tells the agent who got which interface and addresses, and
//! hands on what it was handed.
//!
//! Invariants:
//! * an `ADD` with a `prevResult` succeeds and gives it back byte for byte, whatever else fails; `DEL`, `CHECK`, `GC`
//!   and `STATUS` succeed;
//! * it ends within [`PATIENCE`], whatever hangs: input and report have threads of their own, which end with the process;
//! * stdout carries CNI's JSON and nothing else.
//!
//! It is the last of a chain: what the plugins before it did is looked at where it is (inside the namespace and at the
//! host's end of the veth), because `prevResult` names interfaces but tells neither indexes nor which ends belong
//! together. Delivery: [`deliver`].

mod config;
mod deliver;
mod look;
mod raw;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use config::NetworkConfig;

use super::now;
use super::record::Call;

/// Input and report may take so long together; a call takes less than two seconds in all.
const PATIENCE: Duration = Duration::from_millis(1900);
/// What looking and delivering may take.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a configuration that are read.
const MOST_INPUT: u64 = 16 << 20;

const VERSIONS: &[&str] = &["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const LATEST: &str = "1.1.0";

/// CNI's variables, as they were set.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    command: Option<OsString>,
    container: OsString,
    netns: PathBuf,
    ifname: OsString,
    arguments: OsString,
}

impl Environment {
    /// Takes them from a lookup by name.
    pub fn new(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| get(name).unwrap_or_default();
        Self {
            command: get("CNI_COMMAND"),
            container: text("CNI_CONTAINERID"),
            netns: text("CNI_NETNS").into(),
            ifname: text("CNI_IFNAME"),
            arguments: text("CNI_ARGS"),
        }
    }
}

/// Codes of the specification, "Error".
enum Refusal {
    InvalidEnvironment(String),
    NoInput(String),
    NotChained,
}

/// Answers one call; the exit code.
pub fn run(environment: &Environment, input: impl Read + Send + 'static, output: &mut dyn Write) -> u8 {
    #[expect(clippy::disallowed_methods, reason = "the plugin is a process of its own, which has a deadline")]
    let begin = Instant::now();
    let at = now();
    let command = environment.command.as_ref().and_then(|command| command.to_str());
    let Some(command) = command.filter(|command| !command.is_empty()) else {
        let message = "CNI_COMMAND is not set: a container runtime calls this plugin";
        return refuse(output, LATEST, &Refusal::InvalidEnvironment(message.into()));
    };
    if command == "STATUS" {
        // Whether the agent runs makes no difference to whether pods can start.
        return 0;
    }
    let text = match read(input, PATIENCE) {
        Ok(text) => text,
        Err(error) if command == "ADD" || command == "VERSION" => {
            return refuse(output, LATEST, &Refusal::NoInput(error));
        }
        Err(_) => return 0,
    };
    let config = NetworkConfig::parse(&text);
    let report = |call| {
        let left = PATIENCE.saturating_sub(begin.elapsed()).min(REPORT_PATIENCE);
        report(call, environment.clone(), config.clone(), at, left);
    };
    match command {
        "ADD" => match raw::member(&text, "prevResult").filter(|result| result.first() == Some(&b'{')) {
            Some(previous) => {
                report(Call::Add);
                hand_on(output, previous, config.version())
            }
            None => refuse(output, config.version(), &Refusal::NotChained),
        },
        "DEL" => {
            report(Call::Del);
            0
        }
        "CHECK" => {
            report(Call::Check);
            0
        }
        "GC" => {
            report(Call::Gc);
            0
        }
        "VERSION" => {
            let answer = serde_json::json!({ "cniVersion": config.version(), "supportedVersions": VERSIONS });
            print(output, answer.to_string().as_bytes())
        }
        other => {
            let message = format!("CNI_COMMAND `{other}` is not known");
            refuse(output, config.version(), &Refusal::InvalidEnvironment(message))
        }
    }
}

/// All of the input, if it ends in time.
fn read(input: impl Read + Send + 'static, patience: Duration) -> Result<Vec<u8>, String> {
    let (done, finished) = mpsc::sync_channel(1);
    let reader = std::thread::Builder::new().name("input".into());
    let started = reader.spawn(move || {
        let mut text = Vec::new();
        let _ = done.send(input.take(MOST_INPUT).read_to_end(&mut text).map(|_| text));
    });
    started.map_err(|error| error.to_string())?;
    match finished.recv_timeout(patience) {
        Ok(text) => text.map_err(|error| error.to_string()),
        Err(_) => Err("the network configuration on stdin did not end in time".into()),
    }
}

/// Looks and delivers, for as long as there is time. What goes wrong is a line on stderr, for the runtime's log.
fn report(call: Call, environment: Environment, config: NetworkConfig, at: i64, patience: Duration) {
    let (done, finished) = mpsc::sync_channel(1);
    let reporter = std::thread::Builder::new().name("report".into());
    let started = reporter.spawn(move || {
        let data = config.data();
        let record = look::record(call, &environment, &config, at);
        let _ = done.send(deliver::deliver(&record, &data));
    });
    let failure = match started {
        Ok(_) => match finished.recv_timeout(patience) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    eprintln!("wiretag-cni: wiretag was not told of this call: {failure}");
}

/// Gives back the result of the plugins before; a result that does not say its version gets the configuration's.
fn hand_on(output: &mut dyn Write, previous: &[u8], version: &str) -> u8 {
    if raw::member(previous, "cniVersion").is_some() {
        return print(output, previous);
    }
    let rest = previous.get(1..).unwrap_or_default().trim_ascii_start();
    let comma: &[u8] = if rest.first() == Some(&b'}') { b"" } else { b"," };
    let head = format!("{{\"cniVersion\":{}", serde_json::Value::from(version));
    print(output, &[head.as_bytes(), comma, rest].concat())
}

fn refuse(output: &mut dyn Write, version: &str, refusal: &Refusal) -> u8 {
    let (code, message, details) = match refusal {
        Refusal::InvalidEnvironment(message) => (4, "invalid environment", message.as_str()),
        Refusal::NoInput(error) => (5, "cannot read the network configuration", error.as_str()),
        Refusal::NotChained => (
            7,
            "wiretag must be chained: the configuration has no prevResult",
            "put it behind the plugin that makes the interface, as a later entry of `plugins` in a .conflist file",
        ),
    };
    let answer = serde_json::json!({ "cniVersion": version, "code": code, "msg": message, "details": details });
    let _ = print(output, answer.to_string().as_bytes());
    1
}

fn print(output: &mut dyn Write, bytes: &[u8]) -> u8 {
    u8::from(output.write_all(bytes).and_then(|()| output.flush()).is_err())
}

#[cfg(test)]
mod tests;
