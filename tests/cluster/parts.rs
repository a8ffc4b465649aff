//! Parts of a session on whole nodes, through the leader and through a follower, out of memory and off the disk.

use bytes::Bytes;
use quorate::client::{Client, Content, Part, WriteOptions};
use quorate::testing::Cluster;

/// Bytes that no compression makes less of.
pub fn noise(seed: usize, count: usize) -> Bytes {
    let mut state = seed as u64 | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(count).collect::<Vec<_>>().into()
}

async fn parts_are_those_of_the_whole(client: &Client, messages: &[Bytes]) {
    let count = messages.len() as u64;
    let from = |item, limit| Part::From { item, limit };
    let parts = [
        Part::Head,
        Part::Last(1),
        Part::Last(20),
        Part::Last(100_000),
        from(0, 1),
        from(count / 2, 3),
        from(count - 1, 9),
        from(count, 9),
    ];
    for part in parts {
        let loaded = client.load_part("t", part).await.expect("answered").expect("stored");
        let items = part.items(count);
        let Some(Content::Transcript { messages: held, .. }) = loaded.content else { panic!("a transcript") };
        assert_eq!(held, messages[items.start as usize..items.end as usize], "{part:?}");
        assert_eq!((loaded.first_item, loaded.info.items), (items.start, count), "{part:?}");
    }
    let info = client.load_part("t", Part::Info).await.expect("answered").expect("stored");
    assert_eq!((info.content, info.info.items), (None, count));
}

#[tokio::test]
async fn a_part_is_what_the_whole_session_holds_wherever_it_is_asked_and_wherever_its_rows_lie() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let writer = cluster.client();
    let mut messages: Vec<Bytes> = (0..6).map(|n| noise(n, 500_000)).collect();
    for more in 0..40 {
        messages.extend((0..1 + more % 3).map(|n| noise(more * 7 + n, 50 + more * 100)));
        let content = Content::Transcript { messages: messages.clone(), head: "{}".into(), counters: Default::default() };
        writer.save("t", content, WriteOptions::default()).await.expect("saved");
    }
    for endpoint in cluster.endpoints() {
        let client = Client::builder().endpoints([endpoint]).build().expect("well formed");
        parts_are_those_of_the_whole(&client, &messages).await;
    }
    // What was applied lies in the file once a node has stopped in order.
    for id in cluster.nodes() {
        cluster.stop(id).await.expect("it ends in order");
        cluster.restart(id).await.expect("it starts");
    }
    parts_are_those_of_the_whole(&cluster.client(), &messages).await;
}
