//! The client: what an application embeds.
//!
//! It promises that every call takes effect at one instant between its start and its answer, that a write is applied once however often
//! it had to be sent, and that [`ErrorKind`] says truthfully whether anything changed. It connects lazily and works through the loss of
//! nodes within a call's deadline. A write is handed to the client's own task: dropping the caller's future does not cancel it, and the
//! caller's next call on that session comes after it.
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate::client::Error> {
//! use quorate::client::{Client, Content, WriteOptions};
//!
//! let client = Client::builder().endpoints(["127.0.0.1:7460", "127.0.0.1:7470", "127.0.0.1:7480"]).build()?;
//! client.save("greeting", Content::Value("hello".into()), WriteOptions::default()).await?;
//! let session = client.load("greeting").await?;
//! # Ok(())
//! # }
//! ```

mod admin;
mod append;
mod ask;
#[cfg(feature = "bob")]
pub mod bob;
mod builder;
mod cache;
mod clients;
mod config;
mod content;
mod credentials;
mod driver;
mod edits;
mod error;
mod failures;
mod handle;
mod members;
mod operations;
mod parts;
mod seen;
mod sessions;
mod status;
mod touch;
mod transaction;
mod turn;
mod watch;

use std::any::Any;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::oneshot;

#[doc(hidden)]
pub use admin::{AdminAnswer, AdminPort};
pub use builder::Builder;
#[doc(hidden)]
pub use clients::{ClientFilter, Clients, Dropped, OpenedClient, TokenClients};
pub use content::{
    Content, CopyOptions, LoadOptions, PartOf, PartOptions, PartRead, Read, SeenContent, Session, SessionPart, WriteOptions,
    Written,
};
pub use credentials::Tls;
pub use driver::connection::{Connecting, Connector, DialError, Tcp};
// Pure decisions, for explorers of them: no part of the interface.
#[doc(hidden)]
pub use cache::pack::is_readable;
#[doc(hidden)]
pub use content::{AppendOptions, Appended, Touched};
#[doc(hidden)]
pub use driver::{retry, router};
pub use error::{Error, ErrorKind};
pub use failures::EndpointFailure;
pub use operations::{Backup, BackupPiece, NodeEvent, NodeEvents, Purge, PurgeProgress};
pub use status::StatusOptions;
#[doc(hidden)]
pub use transaction::{Done, Transacted, Transaction};
#[doc(hidden)]
pub use turn::{Turn, TurnOptions, Wait};
pub use watch::{WatchOptions, Watching};

pub use crate::types::{
    ClusterStatus, Consistency, Counters, Expected, Expiry, Label, List, ListPage, Listed, Member, MemberChange, Members,
    NodeCheck, NodeId, NodeStatus, Order, Part, Position, Require, Revision, Role, Selector, SessionChange, SessionId, SessionInfo,
    Version, WatchFrame,
};

use crate::types::{ClientId, ContentVersion, LoadedContent, Nonce, Outcome, Request, Saved, Sequence, Verdict, Write};
use crate::wire::LoadAssembler;
use cache::Cache;
use cache::bases::SaveMode;
use cache::view::{Failure, New, View};
use driver::operation::Body;
use handle::Handle;
use turn::Turns;

/// Stands where the driver puts the identity of a write when it sends it.
const NO_REQUEST: Request =
    Request { client: ClientId(0), nonce: Nonce([0; 16]), sequence: Sequence(0), acknowledged_below: Sequence(0) };

/// A connection to a cluster, cheap to clone; all clones share connections and one identity.
#[derive(Clone)]
pub struct Client {
    handle: Handle,
    /// The bases of sessions stored as bytes.
    cache: Arc<Cache<Bytes>>,
    /// The bases of an adapter's sessions, in its own form.
    adapter: Arc<OnceLock<Arc<dyn Any + Send + Sync>>>,
    turns: Arc<Turns>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.handle.config().endpoints).finish_non_exhaustive()
    }
}

impl Client {
    /// Starts building a client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The session, as of now; `None` if it never existed, is deleted or expired. Never `None` because of an error.
    ///
    /// Errors: `Refused`, `Corrupt`, `Unauthenticated`, `Denied`; `Invalid` for an id above its bound. Dropping the future cancels it.
    pub async fn load(&self, id: &str) -> Result<Option<Session>, Error> {
        Ok(self.load_with(id, LoadOptions::default()).await?.session)
    }

    /// Like [`Client::load`], with a choice of guarantee, and with where in the order of writes the answer was read.
    pub async fn load_with(&self, id: &str, options: LoadOptions) -> Result<Read, Error> {
        let answer = sessions::load(&self.handle, &self.cache, id, options.consistency, true).await.map_err(failed)?;
        Ok(read_of(answer))
    }

    /// Several sessions, all of one instant: each as [`Client::load`] gives it, in the order of `ids`, and all with one
    /// [`Session::revision`]. Linearizable, as one load is.
    ///
    /// The memory of this client is used and renewed: of a session that it knows only news travel.
    ///
    /// Bounds: 1 to 64 ids; what travels is at most 16 MiB as stored, out of at most 8192 chunks and heads. Above it the call fails as
    /// `Invalid`, with the sum and the bound: load fewer at once, or parts of them ([`Client::load_parts`]).
    ///
    /// Errors: as [`Client::load`]; `Denied` if the token may not read one of them; `Unsupported` if no node that was asked has a release that
    /// knows the call, or the leader's does not: nothing else answers for one instant, so the client does not load them one by one by itself.
    /// Dropping the future cancels it.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::Client) -> Result<(), quorate::client::Error> {
    /// let ids = ["conversation", "conversation/plan", "conversation/memory"];
    /// for (id, session) in ids.iter().zip(client.load_many(&ids).await?) {
    ///     match session {
    ///         Some(session) => println!("{id} is at version {} as of {}", session.info.version, session.revision),
    ///         None => println!("there is no {id}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn load_many<I: AsRef<str>>(&self, ids: &[I]) -> Result<Vec<Option<Session>>, Error> {
        let reads = self.load_many_with(ids, LoadOptions::default()).await?;
        Ok(reads.into_iter().map(|read| read.session).collect())
    }

    /// Like [`Client::load_many`], with a choice of guarantee, and with where in the order of writes the answers were read: one place for all.
    pub async fn load_many_with<I: AsRef<str>>(&self, ids: &[I], options: LoadOptions) -> Result<Vec<Read>, Error> {
        let ids = ids.iter().map(|id| session_id(id.as_ref())).collect::<Result<Vec<_>, Error>>()?;
        let answers = sessions::load_many(&self.handle, &self.cache, ids, options.consistency).await.map_err(failed)?;
        Ok(answers.into_iter().map(read_of).collect())
    }

    /// Parts of several sessions, all of one instant, in the order of `wanted`: each as [`Client::load_part_with`] gives it.
    ///
    /// The client's memory of sessions is neither used nor changed. Bounds and errors: as [`Client::load_many`]; of a [`Part::From`] the chunks
    /// up to the nearer end of the session may have to be read, and count. Dropping the future cancels it.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::Client) -> Result<(), quorate::client::Error> {
    /// use quorate::client::{Consistency, Part, PartOf};
    ///
    /// let wanted = ["a", "b", "c"].map(|id| PartOf::new(id, Part::Info));
    /// for read in client.load_parts(&wanted, Consistency::Linearizable).await? {
    ///     println!("{:?}", read.part.map(|part| part.info.version));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn load_parts(&self, wanted: &[PartOf], consistency: Consistency) -> Result<Vec<PartRead>, Error> {
        let wanted = wanted.iter().map(|PartOf { id, part, have }| Ok((session_id(id)?, *part, *have)));
        parts::load_many(&self.handle, wanted.collect::<Result<_, Error>>()?, consistency).await
    }

    /// A part of the session, as of now: its metadata, its head, its last items or some from a number on; `None` if there is none.
    ///
    /// It costs what is asked for, not what the session is: the chunks that hold the items, whole, travel and no others, and this client's
    /// memory of the session is neither used nor changed. Of [`Part::From`], a node reads the chunks from the nearer end of the session on.
    ///
    /// Bounds: [`Part::Last`] and the limit of [`Part::From`] are 1 to 100 000. A session with fewer items gives all there are; a `From`
    /// beyond the end gives none, with [`SessionPart::first_item`] at the end. Nodes of a release before parts answer with everything, which
    /// is cut here: correct, only dearer.
    ///
    /// Errors: as [`Client::load`]; `Invalid` also for a part out of its bounds. Dropping the future cancels it.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::Client) -> Result<(), quorate::client::Error> {
    /// use quorate::client::{Content, Part};
    ///
    /// if let Some(part) = client.load_part("conversation", Part::Last(20)).await?
    ///     && let Some(Content::Transcript { messages, .. }) = part.content
    /// {
    ///     println!("messages {}.. of {}: {}", part.first_item, part.info.items, messages.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn load_part(&self, id: &str, part: Part) -> Result<Option<SessionPart>, Error> {
        Ok(self.load_part_with(id, part, PartOptions::default()).await?.part)
    }

    /// Like [`Client::load_part`], with a choice of guarantee, with where in the order of writes the answer was read, and, for a caller who
    /// has a part of some content already, whether that is still what is stored.
    pub async fn load_part_with(&self, id: &str, part: Part, options: PartOptions) -> Result<PartRead, Error> {
        parts::load(&self.handle, &self.cache, id, part, options).await
    }

    /// Stores `content`, whatever was there.
    ///
    /// Errors: every [`ErrorKind`] but `Conflict`; after `Indeterminate` it may or may not have happened. Dropping the future does not
    /// cancel the save once it is enqueued: the caller's next call on this session waits for it.
    pub async fn save(&self, id: &str, content: Content, options: WriteOptions) -> Result<Written, Error> {
        self.save_by(id, content, SaveMode::Blind, options).await
    }

    /// Stores `content` if the session is as expected.
    ///
    /// Errors: every [`ErrorKind`]; `Conflict` if it is not, with the version that is stored. Otherwise as [`Client::save`].
    pub async fn save_if_version(
        &self,
        id: &str,
        content: Content,
        expected: Expected,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        self.save_by(id, content, SaveMode::Expect(expected), options).await
    }

    async fn save_by(&self, id: &str, content: Content, mode: SaveMode, options: WriteOptions) -> Result<Written, Error> {
        let (items, head, counters) = content.into_parts();
        let new = New { items: &items, head, counters };
        sessions::save(&self.handle, &self.cache, id, new, mode, options.attributes()).await.map_err(failed)
    }

    /// The memory of an adapter, shared by all clones. Only one adapter may use it.
    #[allow(dead_code, reason = "without an adapter nobody uses it")]
    fn adapters<T: Any + Send + Sync + Default>(&self) -> Arc<T> {
        let known = self.adapter.get_or_init(|| Arc::new(T::default())).clone();
        known.downcast().unwrap_or_default()
    }

    /// Deletes the session, if it is as expected where that is given. `None`: there was nothing.
    ///
    /// Errors: as [`Client::save_if_version`]. Dropping the future does not cancel it.
    pub async fn delete(&self, id: &str, expected: Option<Expected>) -> Result<Option<Written>, Error> {
        let write = Write::Delete { request: NO_REQUEST, id: session_id(id)?, expected, fence: self.handle.fence() };
        let outcome = self.handle.write(write, None).await?;
        match outcome.verdict {
            Verdict::NotFound { .. } => Ok(None),
            _ => written(outcome).map(Some),
        }
    }

    /// One page of sessions, in order of their ids. Errors: as [`Client::load`]. Dropping the future cancels it.
    pub async fn list(&self, list: List) -> Result<ListPage, Error> {
        self.handle.read(|reply| Body::List { list, reply }).await
    }

    /// Watches which sessions change; their content is not sent. See [`crate::docs::verbs`] for what is promised.
    ///
    /// Each session's newest state comes once, however often it changed since the frame before. After a frame with a revision everything up to
    /// it was shown; at a `complete` frame what was shown is the whole. After a frame that says `resync` the whole state follows, up to the
    /// one that is `walked`: what is not in it is gone. The watch continues on other nodes by itself, and misses nothing by it.
    ///
    /// Errors: `Invalid`, more than 64 ids; others come as items. Must be called within a tokio runtime. Dropping what it gives ends it.
    ///
    /// ```no_run
    /// # async fn example(client: quorate::client::Client) -> Result<(), quorate::client::Error> {
    /// use quorate::client::{SessionChange, WatchOptions};
    ///
    /// let mut watching = client.watch(WatchOptions { initial: true, ..WatchOptions::prefix("agents/") })?;
    /// while let Some(frame) = watching.next().await {
    ///     for change in frame?.changes {
    ///         match change {
    ///             SessionChange::Saved { id, info } => println!("{} is at version {}", id.as_str(), info.version),
    ///             SessionChange::Gone { id } => println!("{} is gone", id.as_str()),
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, options: WatchOptions) -> Result<Watching, Error> {
        watch::begin(self.handle.config().clone(), options)
    }

    /// The cluster's status as the first reachable endpoint knows it; answered without a quorum.
    ///
    /// Errors: `Refused` if no endpoint answers within the timeout. Dropping the future cancels it.
    pub async fn status(&self, options: StatusOptions) -> Result<ClusterStatus, Error> {
        status::ask(self.handle.config(), options).await
    }

    /// The members, as the first endpoint that answers has applied them. Needs no quorum. Errors: none answers. Cancel safe.
    pub async fn members(&self) -> Result<Members, Error> {
        members::members(self.handle.config()).await
    }

    /// Changes the members of the cluster, within so long; gives the members after it. `force` also makes a change after which the
    /// members that answer are no majority.
    ///
    /// Errors: `Invalid`, with the reason, where it may not be, nothing changed; `Refused`, not in time, nothing changed;
    /// `Indeterminate`: it may have happened. Asking again is always safe. Dropping the future leaves what was proposed to happen.
    pub async fn change_members(&self, change: MemberChange, force: bool, within: std::time::Duration) -> Result<Members, Error> {
        members::change(self.handle.config(), change, force, within).await
    }

    /// Raises the cluster version by one although members hold it (`cluster_version_max` in their cluster.toml); gives the version in force then.
    /// Where no later one is known nothing changes. Releases that do not read it are refused from then on.
    ///
    /// Errors: `Invalid`: a member does not read the next version, with which; `Refused`: there is no leader; `Indeterminate`: it may have
    /// happened. Asking again is always safe. Dropping the future does not stop it.
    pub async fn finish_upgrade(&self, within: std::time::Duration) -> Result<u32, Error> {
        members::finish_upgrade(self.handle.config(), within).await
    }

    /// Transfers the leadership to a voter, by default the one whose log is the longest; gives the leader after it.
    ///
    /// Errors: `Invalid`: nobody can take over, with the reason; `Refused`: there is no leader; `Indeterminate`. Dropping the future does
    /// not stop it.
    pub async fn transfer_leadership(&self, to: Option<NodeId>, within: std::time::Duration) -> Result<NodeId, Error> {
        members::transfer_leadership(self.handle.config(), to, within).await
    }

    /// The holders of clients, and at most `limit` of the clients that `filter` names, those with the most recorded outcomes first.
    ///
    /// Errors: `Denied` without the scope `admin`; `Refused`: there is no leader. Dropping the future cancels it.
    pub async fn clients(&self, filter: &ClientFilter, limit: u32, within: std::time::Duration) -> Result<Clients, Error> {
        clients::list(self.handle.config(), filter, limit, within).await
    }

    /// Ends clients, as they would themselves: their ids are worth nothing any more, and a write that one of them has open may end as
    /// `Indeterminate`. At most 10 000 in one call.
    ///
    /// Errors: `Invalid`: nobody in particular is meant; `Denied`; `Refused`: there is no leader; `Indeterminate`: some may have ended. Asking
    /// again is always safe. Dropping the future does not stop it.
    pub async fn drop_clients(&self, filter: &ClientFilter, within: std::time::Duration) -> Result<Dropped, Error> {
        clients::drop_some(self.handle.config(), filter, within).await
    }

    /// The past of the first endpoint that answers; needs no quorum.
    ///
    /// Errors: `Refused` if none answers. Dropping the future cancels it.
    pub async fn events(&self) -> Result<NodeEvents, Error> {
        operations::events(self.handle.config()).await
    }

    /// A backup of the first endpoint that can give one, with everything up to `at_least`, waited for at most `timeout`; needs no quorum.
    ///
    /// Errors: `Refused` if no endpoint has come so far. Dropping the future cancels it.
    pub async fn backup(&self, at_least: Revision, timeout: std::time::Duration) -> Result<Backup, Error> {
        operations::backup(self.handle.config(), at_least, timeout).await
    }

    /// Has the first endpoint that answers erase deleted data from its own disk: the entries of its log so far, and the free pages of
    /// its state. A client of one endpoint reaches one node. It takes about as long as a backup; meanwhile writes may wait for that node.
    ///
    /// Errors: `Refused` if no endpoint answers. Dropping the future, or the [`Purge`], does not stop a node that has begun.
    pub async fn purge(&self) -> Result<Purge, Error> {
        operations::purge(self.handle.config()).await
    }

    /// Waits for the writes that are open, for all clones, and tells the cluster that this client is gone; best effort.
    ///
    /// A later call opens the client again. Dropping the future changes nothing: the closing continues.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        self.handle.close(reply).await;
        // It ended without an answer: then it is closed too.
        let _ = closed.await;
    }
}

impl Session {
    /// The session in content as a node stores it. Errors: `Corrupt`, if it is none of this client's.
    pub fn from_stored(content: LoadedContent, revision: Revision) -> Result<Self, Error> {
        sessions::from_stored(content, revision)
    }
}

fn failed(failure: Failure) -> Error {
    match failure {
        Failure::Client(error) => error,
        Failure::Encoding(why) => Error::corrupt(why),
    }
}

fn read_of(answer: sessions::LoadAnswer<Bytes>) -> Read {
    let sessions::LoadAnswer { revision, tombstone, age, found } = answer;
    let session = found.map(|found| {
        let info = found.info.unwrap_or_default();
        Session { info, revision, content: content_of(&found.view) }
    });
    Read { revision, tombstone, age, session }
}

fn content_of(view: &View<Bytes>) -> Content {
    Content::from_parts(&view.head, view.map(Bytes::clone), &view.counters)
}

fn assembler() -> Box<LoadAssembler> {
    Box::default()
}

fn session_id(id: &str) -> Result<SessionId, Error> {
    SessionId::new(id).map_err(|error| Error::invalid(error.to_string()))
}

fn written(outcome: Outcome) -> Result<Written, Error> {
    let revision = outcome.revision;
    match outcome.verdict {
        Verdict::Saved(Saved { content: ContentVersion { version, create_revision, .. }, .. }) => {
            Ok(Written { version, create_revision, revision })
        }
        Verdict::Deleted { version } => Ok(Written { version, create_revision: Revision(0), revision }),
        verdict => Err(Error::of_verdict(&verdict, revision)),
    }
}
