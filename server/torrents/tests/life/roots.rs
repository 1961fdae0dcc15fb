//! Data that must be in some folders: what is outside is refused, also by links and for root, and what
//! is kept there is not touched.

use super::*;
use control::roots::Roots;
use std::os::unix::fs::symlink;

/// `root` and `out`, and a link in the first to the second.
fn folders(folder: &TempDir) -> (PathBuf, PathBuf, PathBuf) {
    let top = folder.path().canonicalize().unwrap();
    let (root, out) = (top.join("root"), top.join("out"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&out).unwrap();
    let link = root.join("link");
    symlink(&out, &link).unwrap();
    (root, out, link)
}

fn rooted(settings: &mut Settings, root: &Path) {
    settings.save_path = root.join("downloads");
    settings.roots = Roots::new(&[root.to_owned()]);
}

/// The field that is refused.
fn field<T: std::fmt::Debug>(refused: Result<T, CommandError>) -> &'static str {
    match refused {
        Err(CommandError::Invalid { field, reason }) => {
            assert!(reason.contains("library.roots has"), "{reason}");
            field
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_outside_or_goes_there_is_refused_and_changes_nothing() {
    let one = TempDir::new().unwrap();
    let (root, out, link) = folders(&one);
    let host = Host::start_with(0, one.path(), |settings| {
        rooted(settings, &root);
        settings.category_paths = [("films".to_owned(), out.clone())].into();
    })
    .await;
    let (inside, outside) = (data(&root), data(&out));
    let info_hash = made(&host, &inside).await;
    let metainfo = host.metainfo(info_hash).await;
    let remove = Action::Remove { with_data: false };
    host.act(info_hash, remove).await.unwrap();
    let ask = async |add| {
        let add = |reply| Command::Add(Box::new(add), reply);
        host.server.ask(add).await
    };
    let with = |save_path: Option<PathBuf>, category: Option<&str>| AddTorrent {
        save_path,
        category: category.map(str::to_owned),
        ..AddTorrent::new(AddSource::Metainfo(metainfo.clone()))
    };
    for path in [&out, &link, &link.join("new")] {
        let magnet = format!("magnet:?xt=urn:btih:{info_hash}");
        let magnet = Box::new(Magnet::parse(&magnet).unwrap());
        let of_link = AddTorrent {
            save_path: Some(path.clone()),
            ..AddTorrent::new(AddSource::Magnet(magnet))
        };
        assert_eq!(
            field(ask(with(Some(path.clone()), None)).await),
            "save_path"
        );
        assert_eq!(field(ask(of_link).await), "save_path");
    }
    assert_eq!(field(ask(with(None, Some("films"))).await), "save_path");
    // Also what a root itself is made of: its data are beside it.
    for path in [outside.clone(), link.join("data"), root.clone()] {
        let add = AddTorrent::new(AddSource::Path(path));
        assert_eq!(field(ask(add).await), "path");
    }
    assert!(host.server.catalog().is_empty());
    assert!(!out.join("new").exists());

    let info_hash = made(&host, &inside).await;
    for (path, data_are_there) in [(&out, false), (&link.join("x"), false), (&link, true)] {
        let to = Move {
            save_path: path.clone(),
            data_are_there,
        };
        let moved = host.server.ask(|reply| Command::Move(info_hash, to, reply));
        assert_eq!(field(moved.await), "save_path");
    }
    assert_eq!(host.torrent(info_hash).unwrap().summary.save_path, root);
    let to = Move {
        save_path: root.join("elsewhere"),
        data_are_there: false,
    };
    let moved = host.server.ask(|reply| Command::Move(info_hash, to, reply));
    moved.await.unwrap();
    let there = root.join("elsewhere");
    host.until(info_hash, |torrent| {
        torrent.summary.save_path == there && torrent.live.status == Status::Seeding
    })
    .await;
    assert_same(&there.join("data"), &outside);
    host.stop().await;
}

/// A torrent whose folder is outside, or becomes so by a link, is neither served nor deleted, and comes
/// back with no byte hashed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_outside_is_offline_until_its_folder_is_inside() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (root, out, _) = folders(&one);
    let data = data(&out);
    let host = Host::start(0, one.path()).await;
    let info_hash = made(&host, &data).await;
    let metainfo = host.metainfo(info_hash).await;
    host.stop().await;

    let mut settings = None;
    let host = Host::start_with(0, one.path(), |set| {
        rooted(set, &root);
        settings = Some(set.clone());
    })
    .await;
    let mut settings = settings.unwrap();
    let torrent = host.until_status(info_hash, Status::Offline).await;
    let told = torrent.summary.last_error.unwrap().text;
    assert!(told.contains("library.roots has"), "{told}");
    assert!(torrent.pieces_verified > 0, "what was verified stays so");
    assert_eq!(host.plane.dormant_count(), 0);
    let remove = Action::Remove { with_data: true };
    let refused = host.act(info_hash, remove).await;
    assert!(matches!(refused, Err(CommandError::Conflict(_))));
    assert!(host.torrent(info_hash).is_some() && data.join("a").exists());

    settings.roots = Roots::new(&[root.clone(), out.clone()]);
    host.manager.reload(settings.clone());
    host.until_status(info_hash, Status::Seeding).await;
    let hashed = host
        .cells
        .counter(seedring_metrics::ControlCounter::VerifiedBytes);
    assert_eq!(hashed, 0);
    // It is taken away again, and a peer comes.
    settings.roots = Roots::new(&[root]);
    host.manager.reload(settings);
    host.until_status(info_hash, Status::Offline).await;
    let peer = Host::start(1, two.path()).await;
    peer.add(of_file(metainfo, host.address())).await;
    peer.until_status(info_hash, Status::Downloading).await;
    assert_eq!(host.plane.awake_count(), 0);
    peer.stop().await;
    host.stop().await;
}

/// Nobody looks between a start and a peer that comes: then it is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_has_become_a_link_is_found_out_when_it_is_used() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (root, out, _) = folders(&one);
    let host = Host::start_with(0, one.path(), |settings| rooted(settings, &root)).await;
    let info_hash = made(&host, &data(&root.join("mine"))).await;
    let metainfo = host.metainfo(info_hash).await;
    fs::rename(root.join("mine"), out.join("mine")).unwrap();
    symlink(out.join("mine"), root.join("mine")).unwrap();
    let peer = Host::start(1, two.path()).await;
    peer.add(of_file(metainfo.clone(), host.address())).await;
    let torrent = host.until_status(info_hash, Status::Offline).await;
    let told = torrent.summary.last_error.unwrap().text;
    assert!(told.contains("is really"), "{told}");
    assert_eq!(host.plane.awake_count(), 0);
    peer.stop().await;
    let remove = Action::Remove { with_data: true };
    assert!(host.act(info_hash, remove).await.is_err());
    assert!(out.join("mine/data/a").exists());
    // A download makes nothing there either.
    let remove = Action::Remove { with_data: false };
    host.act(info_hash, remove).await.unwrap();
    fs::remove_file(root.join("mine")).unwrap();
    let waits = AddTorrent {
        paused: true,
        save_path: Some(root.join("mine")),
        ..AddTorrent::new(AddSource::Metainfo(metainfo))
    };
    host.add(waits).await;
    host.until_status(info_hash, Status::Paused).await;
    let empty = out.join("empty");
    fs::create_dir(&empty).unwrap();
    symlink(&empty, root.join("mine")).unwrap();
    host.act(info_hash, Action::Resume).await.unwrap();
    host.until_status(info_hash, Status::Offline).await;
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    host.stop().await;
}
