//! Where a tracker may lead us: redirects, addresses inside a network, and the peers that it names.

use super::*;

#[tokio::test]
async fn redirects_are_followed_five_times() {
    for (hops, good) in [(5, true), (6, false)] {
        let server = Server::start("127.0.0.1", move |head| {
            let at = head
                .find("hop=")
                .map_or(0, |at| head[at + 4..at + 5].parse().unwrap());
            if at == hops {
                ok(GOOD)
            } else {
                moved(&format!("/announce?hop={}", at + 1))
            }
        })
        .await;
        let outcome = announce(&server.url()).await;
        assert_eq!(
            matches!(outcome, Outcome::Reply(_)),
            good,
            "{hops}: {outcome:?}"
        );
        assert!(server.heads().len() <= 6);
    }
}

#[tokio::test]
async fn a_redirect_loop_and_a_strange_scheme_end() {
    let server = Server::start("127.0.0.1", |_| moved("/announce")).await;
    assert_eq!(
        error_of(announce(&server.url()).await),
        "more than 5 redirects"
    );
    let server = Server::start("127.0.0.1", |_| moved("file:///etc/passwd")).await;
    error_of(announce(&server.url()).await);
}

#[tokio::test]
async fn a_global_tracker_cannot_send_us_inside() {
    let inside = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let target = inside.url();
    let global = Server::start("127.0.0.2", move |_| moved(&target)).await;
    let client = || scoped(pretend_127_0_0_2_is_global);
    let error = error_of(announce_with(client(), &global.url()).await);
    assert!(error.contains("has no global address"), "{error}");
    assert_eq!((global.heads().len(), inside.heads().len()), (1, 0));
    // The other way is allowed, and the tracker inside by itself is too.
    let target = Server::start("127.0.0.2", |_| ok(GOOD)).await.url();
    let from_inside = Server::start("127.0.0.1", move |_| moved(&target)).await;
    for url in [from_inside.url(), inside.url()] {
        assert!(matches!(
            announce_with(client(), &url).await,
            Outcome::Reply(_)
        ));
    }
}

#[tokio::test]
async fn a_global_tracker_names_no_peers_inside() {
    let inside = Server::start("127.0.0.1", |_| ok(PEERS)).await;
    let global = Server::start("127.0.0.2", |_| ok(PEERS)).await;
    for (server, due) in [(&inside, 3), (&global, 1)] {
        let client = scoped(|ip| is_global(ip) || pretend_127_0_0_2_is_global(ip));
        let outcome = announce_with(client, &server.url()).await;
        let Outcome::Reply(reply) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(reply.peers.len(), due, "{:?}", reply.peers);
        assert_eq!(reply.peers[0], "8.8.8.8:80".parse().unwrap());
    }
}

#[tokio::test]
async fn who_answers_after_a_redirect_names_what_he_can_see() {
    let target = Server::start("127.0.0.2", |_| ok(PEERS)).await.url();
    let inside = Server::start("127.0.0.1", move |_| moved(&target)).await;
    let client = scoped(|ip| is_global(ip) || pretend_127_0_0_2_is_global(ip));
    let Outcome::Reply(reply) = announce_with(client, &inside.url()).await else {
        panic!("no answer")
    };
    assert_eq!(reply.peers, ["8.8.8.8:80".parse().unwrap()]);
}

#[test]
fn a_tracker_of_our_network_names_nothing_on_this_machine() {
    let client = client(&config());
    let names = |from: &str| {
        let peers = ["8.8.8.8:80", "10.0.0.1:82", "127.0.0.1:81", "192.0.2.1:5"];
        let from = from.parse().ok();
        peers.map(|peer| client.may_name(from, peer.parse().unwrap()))
    };
    assert_eq!(names("127.0.0.1"), [true, true, true, true]);
    assert_eq!(names("192.168.0.9"), [true, true, false, true]);
    for outside in ["8.8.4.4", "nobody knows"] {
        assert_eq!(names(outside), [true, false, false, false]);
    }
}

#[tokio::test]
async fn private_addresses_need_leave_and_an_announce_path() {
    let server = Server::start("127.0.0.1", |_| ok(GOOD)).await;
    let closed = AnnounceConfig {
        allow_private_trackers: false,
        ..config()
    };
    let client = client(&closed);
    error_of(announce_with(client, &server.url()).await);
    let elsewhere = format!("http://{}/admin/delete?x=1", server.address);
    error_of(announce(&elsewhere).await);
    assert_eq!(server.heads().len(), 0);
}
