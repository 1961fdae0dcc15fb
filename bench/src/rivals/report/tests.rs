//! Medians, verdicts, ratios and tables of made-up runs.

use super::*;

pub fn figures(gigabytes_per_s: f64, cpu_s_per_gib: f64, load_limited: bool) -> Figures {
    Figures {
        gigabytes_per_s,
        cpu_s_per_gib,
        latency_p50_us: 100.0,
        latency_p90_us: 200.0,
        latency_p99_us: 1_000.0 / gigabytes_per_s,
        latency_p99_9_us: 2_000.0,
        latency_max_us: 5_000.0,
        fairness: 0.95,
        peers_without_data: 0,
        resident_bytes: 64 << 20,
        anonymous_bytes: 32 << 20,
        disk_bytes_per_byte_served: Some(0.0),
        served_share_of_rate: None,
        load_limited,
        elsewhere_cores: 0.0,
        stolen_cores: 0.0,
        chokes: 0,
        rejects: 0,
        disconnects: 0,
        unrequested_blocks: 0,
        pieces_wrong: 0,
    }
}

pub fn run(server: &str, round: usize, peers: usize, figures: Option<Figures>) -> Run {
    let error = figures.is_none().then(|| "it | ended".to_owned());
    Run {
        server: server.to_owned(),
        round,
        peers,
        kind: Kind::Closed,
        cached_share: Some(1.0),
        cached_share_found: Some(1.0),
        content_rounds: (peers == 200).then_some(1.6),
        congestion_controls: vec!["cubic".to_owned()],
        load_average: 0.0,
        figures,
        report: None,
        error,
    }
}

fn server(name: &str, is_ours: bool, protocol: Protocol) -> ServerPart {
    ServerPart {
        name: name.to_owned(),
        version: "1".to_owned(),
        settings: "defaults".to_owned(),
        is_ours,
        protocol,
    }
}

/// Ours, a rival that is load-limited with 200 peers, the floor (16 peers only), and one that
/// fails.
pub fn comparison() -> Comparison {
    let servers = vec![
        server("ours", true, Protocol::Peer),
        server("a<b", false, Protocol::Peer),
        server("floor", false, Protocol::Http),
        server("broken", false, Protocol::Peer),
    ];
    let mut runs = Vec::new();
    for (round, factor) in [(1, 1.0), (2, 2.0), (3, 4.0)] {
        runs.push(run(
            "ours",
            round,
            16,
            Some(figures(3.0 * factor, 0.1, false)),
        ));
        // The second round's load was the limit.
        let limited = round == 2;
        runs.push(run("a<b", round, 16, Some(figures(factor, 0.4, limited))));
        runs.push(run("floor", round, 16, Some(figures(9.0, 0.05, false))));
        runs.push(run("broken", round, 16, None));
    }
    runs.push(run("ours", 1, 200, Some(figures(3.0, 0.1, false))));
    runs.push(run("a<b", 1, 200, Some(figures(1.0, 0.4, true))));
    Comparison {
        rows: rows(&runs, &servers),
        ratios: ratios(&runs, &servers),
        head: Head {
            command: "rivals",
            version: "0",
            date: "2026-01-01".to_owned(),
            host: Host::here(),
            conditions: vec!["a condition".to_owned()],
            settings: Settings {
                peers: vec![16, 200],
                rounds: 3,
                window_ns: 1,
                warmup_ns: 1,
                depth: 64,
                mode: crate::load::Mode::Discard,
                server_cores: vec![0],
                load_cores: vec![1],
                latency: false,
                cold: false,
            },
            servers,
        },
        left_out: vec!["x is not installed".to_owned()],
        runs,
    }
}

fn find<'a>(comparison: &'a Comparison, name: &str, peers: usize) -> &'a Row {
    let mut rows = comparison.rows.iter();
    rows.find(|row| row.server == name && row.peers == peers)
        .unwrap()
}

#[test]
fn a_median_is_of_the_runs_that_are_a_verdict() {
    let comparison = comparison();
    let ours = find(&comparison, "ours", 16).gigabytes_per_s.unwrap();
    assert_eq!((ours.min, ours.median, ours.max), (3.0, 6.0, 12.0));
    let rival = find(&comparison, "a<b", 16);
    let spread = rival.gigabytes_per_s.unwrap();
    assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 4.0));
    assert_eq!((rival.runs, rival.load_limited), (3, 1));
    assert!(rival.is_verdict);
    assert_eq!(rival.remarks, ["1 of 3 load-limited and left out"]);
    let limited = find(&comparison, "a<b", 200);
    assert!(!limited.is_verdict);
    let lapped = "all of the content asked for up to 1.6 times: not all cold (--size)";
    let cached = "up to 100 % of the content still in the page cache";
    assert_eq!(
        limited.remarks,
        ["† load-limited: no verdict", cached, lapped]
    );
    let broken = find(&comparison, "broken", 16);
    assert_eq!((broken.runs, broken.failed), (0, 3));
    assert_eq!(broken.remarks, ["FAILED: it | ended"]);
    assert!(find(&comparison, "floor", 16).latency_p99_us.is_none());
    assert!(!comparison.is_complete());
}

#[test]
fn a_ratio_is_within_a_round_and_needs_two_verdicts() {
    let comparison = comparison();
    let find = |rival: &str, peers: usize| {
        let mut ratios = comparison.ratios.iter();
        ratios
            .find(|ratio| ratio.rival == rival && ratio.peers == peers)
            .unwrap()
    };
    let ratio = find("a<b", 16);
    // Rounds 1 and 3: 3/1 and 12/4; a ratio of the medians would be 6/2.5.
    let throughput = ratio.throughput.unwrap();
    assert_eq!(
        (ratio.rounds, throughput.min, throughput.max),
        (2, 3.0, 3.0)
    );
    assert_eq!(ratio.cpu.unwrap().median, 0.25);
    assert!(ratio.latency_p99.is_none(), "closed loop");
    let void = find("a<b", 200);
    assert_eq!((void.rounds, void.cpu), (0, None));
    assert_eq!(find("broken", 16).rounds, 0);
    assert!(comparison.ratios.iter().all(|ratio| ratio.ours == "ours"));
}

#[test]
fn latencies_are_compared_only_where_both_kept_the_rate() {
    let servers = [
        server("ours", true, Protocol::Peer),
        server("slow", false, Protocol::Peer),
    ];
    let kind = Kind::Open {
        rate_bytes_per_s: 1_000,
    };
    let open = |name: &str, round, share| {
        let mut figures = figures(2.0, 0.1, false);
        figures.served_share_of_rate = Some(share);
        let mut run = run(name, round, 16, Some(figures));
        run.kind = kind;
        run
    };
    let mut runs = vec![open("ours", 1, 1.0), open("slow", 1, 0.2)];
    let found = ratios(&runs, &servers);
    assert_eq!((found[0].rounds, found[0].latency_p99), (1, None));
    assert!(found[0].cpu.is_some());
    let rows = rows(&runs, &servers);
    assert!(rows[0].remarks.is_empty());
    assert!(rows[1].remarks[0].starts_with("did not keep the rate in 1 of 1"));
    runs.extend([open("ours", 2, 1.0), open("slow", 2, 0.99)]);
    assert!(ratios(&runs, &servers)[0].latency_p99.is_some());
}

#[test]
fn two_of_ours_are_compared_once() {
    let servers = [
        server("new", true, Protocol::Peer),
        server("old", true, Protocol::Peer),
    ];
    let runs = [
        run("new", 1, 1, Some(figures(2.0, 0.1, false))),
        run("old", 1, 1, Some(figures(1.0, 0.2, false))),
    ];
    let ratios = ratios(&runs, &servers);
    assert_eq!(ratios.len(), 1);
    assert_eq!(
        (ratios[0].ours.as_str(), ratios[0].rival.as_str()),
        ("new", "old")
    );
    assert_eq!(ratios[0].throughput.unwrap().median, 2.0);
}

#[test]
fn the_report_tells_everything_and_its_tables_hold_together() {
    let comparison = comparison();
    let text = comparison.to_markdown();
    assert!(
        text.starts_with("- a condition\n- left out: x is not installed\n"),
        "{text}"
    );
    assert!(text.contains("**16 peers, closed loop**"));
    assert!(
        text.contains("| ours | 6.00 (3.00–12.00) | 0.100 |"),
        "{text}"
    );
    assert!(text.contains("| a<b | 1.00 † | 0.400 † |"), "{text}");
    assert!(
        text.contains("| ours ÷ a<b | no verdict | no verdict | 0 |"),
        "{text}"
    );
    assert!(text.contains("FAILED: it ¦ ended"), "{text}");
    assert!(text.contains("| broken | – | – |"), "{text}");
    let mut columns = None;
    for line in text.lines() {
        let bars = line.matches('|').count();
        if bars == 0 {
            columns = None;
        } else {
            assert_eq!(*columns.get_or_insert(bars), bars, "{line}");
        }
    }
    let json = serde_json::to_value(&comparison).unwrap();
    assert_eq!(json["rows"][0]["gigabytes_per_s"]["median"], 6.0);
    assert_eq!(json["runs"][0]["loop"], "closed");
}

#[test]
fn wrong_pieces_make_a_comparison_incomplete() {
    let mut comparison = comparison();
    comparison.runs.retain(|run| run.figures.is_some());
    assert!(comparison.is_complete());
    if let Some(figures) = &mut comparison.runs[0].figures {
        figures.pieces_wrong = 1;
    }
    assert!(!comparison.is_complete());
}
