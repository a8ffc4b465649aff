//! `quorate session`: what an application does, by hand.

mod explain;
mod print;
mod stale;
mod transfer;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use quorate::client::{Builder, Client, Content, LoadOptions, Tls, WriteOptions};
use quorate::limits::{LIST_PAGE_MAX, SESSION_ID_BYTES_MAX, SESSION_RAW_BYTES_MAX};
use quorate::types::{Expected, Expiry, List, SessionId, Version};
use serde_json::json;

use crate::args::{self, GetOutput, Output};
use crate::failure::Failure;
use crate::output;

pub use self::explain::read_failure;
use self::explain::write_failure;
pub use self::print::session_json;

/// Runs one of them. The client is closed in any case, so that its row does not stay behind for an hour.
pub async fn run(command: args::Session) -> Result<(), Failure> {
    match command {
        args::Session::Put(args) => put(args).await,
        args::Session::Cas(args) => cas(args).await,
        args::Session::Get(args) => get(args).await,
        args::Session::Rm(args) => rm(args).await,
        args::Session::Ls(args) => ls(args).await,
        args::Session::Export(args) => transfer::export(args).await,
        args::Session::Import(args) => transfer::import(args).await,
    }
}

async fn put(args: args::Put) -> Result<(), Failure> {
    let (id, content) = read_id_and_content(&args.id, &args.content.file)?;
    let options = WriteOptions { expiry: expiry(args.ttl) };
    let client = connect(&args.cluster)?;
    let result = client.save(&id, content, options).await;
    client.close().await;
    print::written(&id, &result.map_err(write_failure)?, args.output)
}

async fn cas(args: args::Cas) -> Result<(), Failure> {
    let (id, content) = read_id_and_content(&args.id, &args.content.file)?;
    let options = WriteOptions { expiry: expiry(args.ttl) };
    let client = connect(&args.cluster)?;
    let result = client.save_if_version(&id, content, expected(args.expect), options).await;
    client.close().await;
    print::written(&id, &result.map_err(write_failure)?, args.output)
}

async fn get(args: args::Get) -> Result<(), Failure> {
    let id = read_id(&args.id)?;
    let client = connect(&args.cluster)?;
    let consistency = stale::consistency(args.stale);
    let result = client.load_with(&id, LoadOptions { consistency }).await;
    client.close().await;
    let read = result.map_err(read_failure)?;
    if args.stale {
        stale::tell(read.age);
    }
    let Some(session) = read.session else {
        return Err(Failure::failed(format!("there is no such session id={}", output::printable(&id))));
    };
    match args.output {
        GetOutput::Json => output::json(&print::session_json(&id, &session)?)?,
        GetOutput::Raw => output::bytes(&print::raw(&session)?)?,
    }
    Ok(())
}

async fn rm(args: args::Rm) -> Result<(), Failure> {
    let id = read_id(&args.id)?;
    let client = connect(&args.cluster)?;
    let result = client.delete(&id, args.expect.map(expected)).await;
    client.close().await;
    match (result.map_err(write_failure)?, args.output) {
        (Some(deleted), Output::Json) => output::json(&print::written_json(&id, &deleted))?,
        (Some(deleted), Output::Table) => {
            output::line(&format!("deleted version={} revision={}", deleted.version, deleted.revision))?
        }
        (None, Output::Json) => output::json(&json!({ "id": id, "version": null, "revision": null }))?,
        (None, Output::Table) => output::line("nothing to delete")?,
    }
    Ok(())
}

/// Pages through the listing; each page is of one instant, the whole of several.
async fn ls(args: args::Ls) -> Result<(), Failure> {
    let client = connect(&args.cluster)?;
    let result = print_listing(&client, &args).await;
    client.close().await;
    result
}

async fn print_listing(client: &Client, args: &args::Ls) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut after: Option<SessionId> = None;
    let mut printer = print::ListPrinter::new(args.output);
    while left > 0 {
        let limit = left.min(u64::from(LIST_PAGE_MAX)) as u32;
        let list = List { prefix: args.prefix.clone(), after: after.take(), limit, consistency: stale::consistency(args.stale) };
        let page = client.list(list).await.map_err(read_failure)?;
        if args.stale && !printer.has_begun() {
            stale::tell(page.age_ms.map(Duration::from_millis));
        }
        printer.page(&page.sessions)?;
        left -= (page.sessions.len() as u64).min(left);
        after = page.sessions.last().map(|listed| listed.id.clone());
        if !page.more || after.is_none() {
            break;
        }
    }
    Ok(printer.end()?)
}

/// A client for one command.
pub fn connect(cluster: &args::Cluster) -> Result<Client, Failure> {
    let mut builder = Client::builder().endpoints(&cluster.endpoints);
    if let Some(timeout) = cluster.timeout {
        builder = builder.write_deadline(timeout).read_deadline(timeout).connect_timeout(timeout.min(Duration::from_secs(2)));
    }
    let builder = with_credentials(builder, &cluster.credentials)?;
    builder.build().map_err(|error| Failure::usage(format!("--endpoints, --ca, --cert, --key, --token-file: {error}")))
}

/// With what the command line says to believe and to show. Errors: that does not fit together.
pub fn with_credentials(mut builder: Builder, credentials: &args::Credentials) -> Result<Builder, Failure> {
    let args::Credentials { ca, cert, key, token_file, token } = credentials;
    match (ca, cert.as_ref().zip(key.as_ref())) {
        (Some(ca), None) => builder = builder.tls(Tls::authority_file(ca)),
        (Some(ca), Some((cert, key))) => builder = builder.tls(Tls::authority_file(ca).identity_files(cert, key)),
        (None, Some(_)) => return Err(Failure::usage("--cert needs --ca: a certificate is shown by TLS only")),
        (None, None) => {}
    }
    match (token_file, token) {
        (Some(file), _) => builder = builder.token_file(file),
        (None, Some(token)) => builder = builder.token(&token.0),
        (None, None) => {}
    }
    Ok(builder)
}

fn expected(version: u64) -> Expected {
    match version {
        0 => Expected::Absent,
        version => Expected::At { version: Version(version), create_revision: None },
    }
}

fn expiry(ttl: Option<Duration>) -> Expiry {
    ttl.map_or(Expiry::Keep, Expiry::After)
}

fn read_id_and_content(id: &str, file: &Path) -> Result<(String, Content), Failure> {
    let content_is_stdin = file == Path::new("-");
    if id == "-" && content_is_stdin {
        return Err(Failure::usage("the id and the content can't both come from stdin; pass --file FILE"));
    }
    let id = read_id(id)?;
    let bytes = if content_is_stdin {
        read_bounded(std::io::stdin().lock(), SESSION_RAW_BYTES_MAX).map_err(|error| Failure::usage(format!("stdin: {error}")))?
    } else {
        std::fs::File::open(file)
            .and_then(|file| read_bounded(file, SESSION_RAW_BYTES_MAX))
            .map_err(|error| Failure::usage(format!("can't read the content: {error}; nothing changed file={}", file.display())))?
    };
    Ok((id, Content::from_json(&bytes)))
}

/// The id as typed, or all of stdin without its last line end.
fn read_id(id: &str) -> Result<String, Failure> {
    if id != "-" {
        return Ok(id.to_owned());
    }
    let bytes = read_bounded(std::io::stdin().lock(), SESSION_ID_BYTES_MAX as u64 + 1)
        .map_err(|error| Failure::usage(format!("can't read the id from stdin: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage("the id on stdin is not UTF-8"))?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

fn read_bounded(from: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("it is too long limit={limit}")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn what_is_longer_than_its_bound_is_refused_and_not_cut() {
        assert_eq!(read_bounded(&b"1234"[..], 4).expect("fits"), b"1234");
        assert!(read_bounded(&b"12345"[..], 4).is_err());
    }

    #[test]
    fn id_and_content_from_one_stdin_are_refused_before_anything_is_read() {
        let failure = read_id_and_content("-", Path::new("-")).expect_err("both");
        assert_eq!(failure.code, Code::Usage);
    }

    #[test]
    fn version_zero_expects_no_session() {
        assert_eq!(expected(0), Expected::Absent);
        assert_eq!(expected(3), Expected::At { version: Version(3), create_revision: None });
    }
}
