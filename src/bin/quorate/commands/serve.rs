//! `quorate serve`: one node, until a signal.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use quorate::env::{self, Env};
use quorate::limits::{ADMIN_CONNECTIONS_MAX, CLIENT_CONNECTIONS_MAX, GREETINGS_MAX, PEER_CONNECTIONS_MAX};
use quorate::limits::{Shortened, shorten};
use quorate::server::config::Config;
use quorate::server::data_dir::{self, Begin};
use quorate::server::{AppliedWrite, Options, Reload, Server, Tuning, is_marked, mark_for_rebuild};
use quorate::types::NodeId;
use sd_notify::NotifyState;

use crate::args;
use crate::failure::Failure;
use crate::output;
use crate::signals::{self, Signals};

/// Files a node has open besides its connections: log segments, state, and what snapshots and backups need for a while.
const OPEN_FILES_BESIDE: u64 = 256;

/// Runs the node until SIGINT, SIGTERM or the end of the parent's pipe; then hands over, flushes and returns.
///
/// Errors: whatever an operator has to fix before the node can start is of kind usage; a node that fails while it runs is not.
pub async fn run(args: args::Serve) -> Result<(), Failure> {
    let unwatched = |error| Failure::failed(format!("can't watch for signals: {error}"));
    let mut signals = Signals::install().map_err(unwatched)?;
    let hangups = signals::hangups().map_err(unwatched)?;
    let mut config = Config::load(&args.config).map_err(Failure::usage)?;
    config
        .use_paths(args.credentials.into_paths())
        .map_err(|error| Failure::usage(format!("{}: {error}", args.config.display())))?;
    let node = NodeId(args.node);
    config.member(node).map_err(|error| Failure::usage(format!("{}: {error}", args.config.display())))?;
    if !args.insecure {
        config.require_loopback().map_err(|error| Failure::usage(format!("{}: {error}", args.config.display())))?;
    }
    if let Some(dir) = args.data_dir {
        config.data_dir = dir;
    }
    if args.print_config {
        return Ok(output::line(config.to_toml().map_err(Failure::failed)?.trim_end())?);
    }
    let exposed = quorate::server::exposed(&config, node);
    if args.check_config {
        quorate::server::check_credentials(&config, node, Env::real().clock).map_err(Failure::usage)?;
        // With stderr gone nobody is left to tell.
        exposed.iter().for_each(|what| drop(writeln!(std::io::stderr(), "warning: {what}")));
        let members = config.members.len();
        return Ok(output::line(&format!("{}: valid node={node} members={members} name={}", args.config.display(), config.name))?);
    }
    let data_dir = config.node_dir(node);
    let begin = if args.bootstrap || args.join { Begin::Yes } else { Begin::No };
    let has_data = data_dir::require(&Env::real(), &config, node, begin).map_err(Failure::usage)?;
    if !has_data {
        say_empty(&data_dir, args.bootstrap, args.parent_pipe);
    }
    let parent = match args.parent_pipe {
        true => Some(signals::stdin_ended().map_err(|error| Failure::failed(format!("can't watch stdin: {error}")))?),
        false => None,
    };
    let shutdown = async move {
        tokio::select! {
            () = signals.recv() => {}
            () = gone(parent) => {}
        }
    };
    open_files();
    exposed.iter().for_each(|what| tracing::warn!("{what}"));
    stand_for(args.test_version, args.short_intervals);
    mark_if_the_engine_panics(&data_dir);
    let tuning = tuned(&config, args.small, args.applied_to.as_deref())?;
    let options = Options { config, node, data_dir: data_dir.clone(), bootstrap: args.bootstrap, env: Env::real() };
    let via = args.peer_via.into_iter().map(|(node, address)| (NodeId(node), address)).collect();
    tokio::pin!(shutdown);
    // A signal while the node is still starting must not be kept waiting: nothing was promised yet.
    let server = tokio::select! {
        server = Server::start_via(options, tuning, via) => server.map_err(Failure::usage)?,
        () = &mut shutdown => return Ok(()),
    };
    tokio::spawn(reload(hangups, server.reload()));
    tell_manager(&NotifyState::Ready);
    let shutdown = async {
        shutdown.await;
        tell_manager(&NotifyState::Stopping);
    };
    let result = server.run(shutdown).await;
    if result.is_err() && is_marked(&Env::real(), &data_dir) {
        return Err(begin_again(&result.err().map_or_else(String::new, |error| error.to_string())));
    }
    // One that was removed must not be started again and again: a person decides what becomes of the machine.
    result.map_err(|error| if error.was_removed() { Failure::usage(error) } else { Failure::failed(error) })
}

/// The operator's settings, and those of a trial.
fn tuned(config: &Config, small: bool, applied_to: Option<&Path>) -> Result<Tuning, Failure> {
    let tuning = Tuning::of(config);
    let tuning = if small { tuning.small() } else { tuning };
    match applied_to {
        Some(path) => written_down(tuning, path),
        None => Ok(tuning),
    }
}

/// Writes down what the node applies: a trial compares it with what clients sent.
fn written_down(tuning: Tuning, path: &Path) -> Result<Tuning, Failure> {
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    let file = file.map_err(|error| Failure::usage(format!("can't write {}: {error}", path.display())))?;
    Ok(tuning.observed(move |applied: AppliedWrite| {
        let AppliedWrite { index, client, sequence, client_unknown } = applied;
        let line = format!("{index} {client} {sequence} {}\n", u8::from(client_unknown));
        // One write, so that no crash leaves half a line. What is missing is a gap, which the trial sees.
        let _ = (&file).write_all(line.as_bytes());
    }))
}

/// Makes this process stand for another release or a trial; for tests.
fn stand_for(next_release: bool, trial: bool) {
    if next_release {
        quorate::server::allow_test_version();
    }
    if trial {
        shorten(Shortened::ButTombstones);
        tracing::warn!("intervals are short, as on the nodes of a trial: no cluster with other nodes may have this one");
    }
}

/// Says that the data directory is empty, and what to do if it should not be.
fn say_empty(data_dir: &Path, bootstrap: bool, supervised: bool) {
    let path = data_dir.display();
    match bootstrap {
        // What started this node knows that it is new.
        true if supervised => tracing::info!(%path, "a new cluster forms once every member is there"),
        true => tracing::warn!(
            %path,
            "the data directory is empty: a new cluster forms once every member is there and as empty. If this cluster has data, stop \
             this node, mount its disk, and leave out --bootstrap, which only the first start of all needs"
        ),
        false => tracing::info!(%path, "waiting until `quorate member add` or `member replace` names this node"),
    }
}

/// Reads certificates and tokens again at each SIGHUP, until the process ends.
async fn reload(mut hangups: signals::Hangups, reload: Reload) {
    while hangups.recv().await.is_some() {
        reload.ask();
    }
}

/// The state is to be rebuilt, which happens before a node starts: this process becomes a new one, with nothing left of the old.
///
/// Answers only if that fails; the supervisor of the process then starts it again, to the same end.
fn begin_again(reason: &str) -> Failure {
    tracing::warn!(reason, "starting over to rebuild this node");
    let error = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    Failure::failed(format!("{reason}; start the node again: it could not by itself: {error}"))
}

/// The engine of the state file panics on some damage of its pages, which ends the process at once: then the next start must not
/// open that file again.
fn mark_if_the_engine_panics(data_dir: &Path) {
    let before = std::panic::take_hook();
    let data_dir = data_dir.to_owned();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|place| place.file().contains("/redb-")) {
            // Errors have nowhere to go from here, and the engine panics again at the next start if this did not help.
            let _ = mark_for_rebuild(&Env::real(), &data_dir, &format!("the engine of the state file gave up: {panic}"), &[]);
        }
        before(panic);
    }));
}

/// Makes room for as many connections as the node lets in, or says what to fix.
fn open_files() {
    // The port for operators has as many places again for probes, and each port some for connections that are not served yet.
    let beginning = ADMIN_CONNECTIONS_MAX + 3 * GREETINGS_MAX as u64;
    let wanted = CLIENT_CONNECTIONS_MAX + PEER_CONNECTIONS_MAX + ADMIN_CONNECTIONS_MAX + beginning + OPEN_FILES_BESIDE;
    if let Some(limit) = env::raise_open_files().filter(|limit| *limit < wanted) {
        tracing::warn!(
            limit,
            wanted,
            "few open files are allowed, so few clients can connect; raise the limit (LimitNOFILE, ulimit -n)"
        );
    }
}

/// Tells a service manager that listens at `NOTIFY_SOCKET`, if one does, that the ports are open, or that the node is stopping.
///
/// Open ports are what it may wait for: a leader appears only once other hosts have started too.
fn tell_manager(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "the service manager can't be notified");
    }
}

async fn gone(parent: Option<tokio::sync::oneshot::Receiver<()>>) {
    match parent {
        Some(parent) => drop(parent.await),
        None => std::future::pending().await,
    }
}
