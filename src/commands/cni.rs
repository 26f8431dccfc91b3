//! `wiretag cni`: the chained CNI plugin (`wiretag_enrich::cni::plugin`), called by container runtimes.
//!
//! The call is recognised before anything else is done: a pod's start waits for it. The runtime finds the plugin by the name of its
//! file and gives no arguments, so the file `wiretag-cni`, which is this binary, is the plugin; so is any name of it when
//! it is called without arguments and with `CNI_COMMAND` set.

use std::path::Path;
use std::process::ExitCode;

use wiretag_enrich::cni::plugin::{self, Environment};

use super::WrongUsage;

/// Name of the plugin's file.
const PLUGIN: &str = "wiretag-cni";

/// Answers, if a container runtime calls.
pub(crate) fn answer() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let is_named = Path::new(&program).file_name().is_some_and(|name| name == PLUGIN);
    let first = arguments.next();
    let asks = first.as_ref().is_none_or(|first| first == "cni") && arguments.next().is_none();
    let is_called = std::env::var_os("CNI_COMMAND").is_some();
    if !asks || !(is_called || (is_named && first.is_none())) {
        return None;
    }
    let environment = Environment::new(|name| std::env::var_os(name));
    Some(ExitCode::from(plugin::run(&environment, std::io::stdin(), &mut std::io::stdout())))
}

/// Called by a person.
pub(crate) fn run() -> anyhow::Result<()> {
    let text = "`wiretag cni` is called by a container runtime, with `CNI_COMMAND` set; hint: `wiretag cni --help` says how to install it";
    Err(WrongUsage(text.into()).into())
}
