//! The plugin's answers, call by call; chains of real plugins are in the product's tests.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Instant;

use super::*;
use crate::cni::record::{Record, socket_path, spool_path};
use crate::cni::spool::Spool;

fn environment(command: &str, more: &[(&str, &str)]) -> Environment {
    let set = [("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
    let find = |name: &str| {
        let pairs = more.iter().chain(&set);
        pairs.into_iter().find(|(own, _)| *own == name).map(|(_, value)| OsString::from(value))
    };
    Environment::new(find)
}

/// Exit code and stdout.
fn call(environment: &Environment, input: &str) -> (u8, String) {
    let mut output = Vec::new();
    let code = run(environment, std::io::Cursor::new(input.to_owned()), &mut output);
    (code, String::from_utf8(output).expect("text"))
}

fn config(data: &Path, more: &str) -> String {
    format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"wiretag-cni","dataDir":{:?}{more}}}"#, data.display())
}

fn spooled(data: &Path) -> Vec<Record> {
    let files = Spool::new(spool_path(data)).files();
    files.iter().map(|path| Record::parse(&std::fs::read(path).expect("a file")).expect("a record")).collect()
}

#[test]
fn the_previous_result_comes_back_as_it_is() {
    let data = tempfile::tempdir().expect("a directory");
    for previous in [
        r#"{ "cniVersion":"1.0.0", "ips":[ {"address":"10.1.0.7/24"} ], "x":1e5, "y":"\u003c\ud800" }"#,
        r#"{"cniVersion":"1.0.0","interfaces":"not a list","ips":7}"#,
    ] {
        let input = config(data.path(), &format!(r#","prevResult":{previous}"#));
        assert_eq!(call(&environment("ADD", &[]), &input), (0, previous.to_owned()));
    }
    let input = config(data.path(), r#","prevResult":{"ips":[]}"#);
    assert_eq!(call(&environment("ADD", &[]), &input).1, r#"{"cniVersion":"1.0.0","ips":[]}"#);
    let input = config(data.path(), r#","prevResult":{ }"#);
    assert_eq!(call(&environment("ADD", &[]), &input).1, r#"{"cniVersion":"1.0.0"}"#);
}

#[test]
fn nothing_keeps_a_pod_from_its_start() {
    // A data directory that cannot be, a namespace that is not, names that are none.
    let input = config(Path::new("/proc/none"), r#","prevResult":{"cniVersion":"1.0.0"}"#);
    let odd = [("CNI_NETNS", "/proc/none/net"), ("CNI_CONTAINERID", "../x"), ("CNI_ARGS", ";;=;K8S_POD_NAME")];
    assert_eq!(call(&environment("ADD", &odd), &input), (0, r#"{"cniVersion":"1.0.0"}"#.to_owned()));
    for command in ["DEL", "CHECK", "GC", "STATUS"] {
        assert_eq!(call(&environment(command, &odd), &input), (0, String::new()), "{command}");
        assert_eq!(call(&environment(command, &odd), "not JSON"), (0, String::new()), "{command}");
    }
}

#[test]
fn a_first_plugin_is_refused_with_an_error_of_the_specification() {
    let data = tempfile::tempdir().expect("a directory");
    for (command, input, code) in [
        ("ADD", config(data.path(), ""), 7),
        ("ADD", config(data.path(), r#","prevResult":null"#), 7),
        ("ADD", "not JSON".to_owned(), 7),
        ("JUMP", config(data.path(), ""), 4),
        ("", config(data.path(), ""), 4),
    ] {
        let (exit, answer) = call(&environment(command, &[]), &input);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!((exit, &answer["code"]), (1, &code.into()), "{command}: {answer}");
        assert!(answer["cniVersion"].is_string() && answer["msg"].is_string(), "{answer}");
    }
    assert!(spooled(data.path()).is_empty());
}

#[test]
fn versions_are_told() {
    let (exit, answer) = call(&environment("VERSION", &[]), r#"{"cniVersion":"0.4.0"}"#);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((exit, &answer["cniVersion"]), (0, &"0.4.0".into()));
    assert_eq!(answer["supportedVersions"], serde_json::json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

#[test]
fn a_record_waits_on_disk_until_somebody_listens() {
    let data = tempfile::tempdir().expect("a directory");
    let pod =
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u-1";
    let previous = r#","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"veth1","mac":"02:00:00:00:00:01"},
        {"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/x"}],
        "ips":[{"address":"10.1.0.7/24","interface":1},{"address":"fd00::7/64"},{"address":"10.9.9.9/24","interface":0}]}"#;
    call(&environment("ADD", &[("CNI_ARGS", pod)]), &config(data.path(), previous));
    let records = spooled(data.path());
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((record.container.as_str(), record.network.as_str(), record.ifname.as_str()), ("c1", "net", "eth0"));
    let pod = record.pod.as_ref().expect("a pod");
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_deref()), ("shop", "cart-0", Some("u-1")));
    assert_eq!(record.mac, Some([2, 0, 0, 0, 0, 2]));
    let ips: Vec<_> = record.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.1.0.7", "fd00::7"], "an address of the host's end is not the container's");

    let socket = UnixDatagram::bind(socket_path(data.path())).expect("a socket");
    let valid = r#","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]"#;
    call(&environment("GC", &[]), &config(data.path(), valid));
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("a record");
    let record = Record::parse(&buffer[..length]).expect("a record");
    assert_eq!((record.call, record.valid), (Call::Gc, Some(vec![("c1".into(), "eth0".into())])));
    assert_eq!(spooled(data.path()).len(), 1);
}

/// An agent that takes nothing: the queue of its socket is full.
#[test]
fn an_agent_that_hangs_delays_little_and_loses_nothing() {
    let data = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(data.path().join("run")).expect("a directory");
    let _socket = UnixDatagram::bind(socket_path(data.path())).expect("a socket");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.connect(socket_path(data.path())).expect("connected");
    filler.set_nonblocking(true).expect("a mode");
    while filler.send(b"{}").is_ok() {}
    let (code, _) = call(&environment("DEL", &[]), &config(data.path(), ""));
    assert_eq!((code, spooled(data.path()).len()), (0, 1));
}

#[test]
fn input_that_never_ends_ends_the_call() {
    struct Endless;
    impl Read for Endless {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            let (_sender, receiver) = mpsc::channel::<()>();
            let _ = receiver.recv_timeout(Duration::from_secs(30));
            Ok(0)
        }
    }
    #[expect(clippy::disallowed_methods, reason = "what is measured is the plugin's deadline")]
    let begin = Instant::now();
    let mut output = Vec::new();
    // The sender lives as long as the read.
    assert_eq!(run(&environment("ADD", &[]), Endless, &mut output), 1);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&output).expect("JSON")["code"], 5);
}
