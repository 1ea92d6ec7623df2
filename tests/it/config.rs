//! Tests of the configuration: its layers, its files, and the answers to mistakes.

use std::{collections::BTreeSet, fs, path::Path};

use postrider::config::{Config, bounds};

use crate::support::sandbox::Sandbox;

/// The smallest working file.
const MINIMAL: &str = include_str!("../../config/minimal.toml");

/// The file that documents every key.
const DOCUMENTED: &str = include_str!("../../config/postrider.toml");

/// A mistake: its name, a text, and variables of the environment. The text is appended to the
/// smallest working file, or stands before it when it begins with no table.
type Mistake = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const DATABASE: &str = "[database]\nurl = \"postgresql://app@127.0.0.1:5432/app\"\n";
const NATS: &str = "[nats]\nurl = \"nats://127.0.0.1:4222\"\n";
const STREAM: &str = "[stream]\nname = \"EVENTS\"\nsubjects = [\"events.>\"]\n";

const MISTAKES: &[Mistake] = &[
    ("unknown_key", "[relay]\nbatch_size = 5", &[]),
    ("unknown_key_far_from_any", "[relay]\nfoo = 5", &[]),
    ("unknown_key_of_another_table", "[relay]\nack_timeout = \"5s\"", &[]),
    ("unknown_key_at_the_top", "listen = \"off\"", &[]),
    ("unknown_table", "[realy]\nbatch_events = 5", &[]),
    ("unknown_table_far_from_any", "[kafka]\nbrokers = 5", &[]),
    ("several_unknown_keys", "[relay]\nbatch_size = 5\n[log]\nlevle = \"info\"", &[]),
    ("table_expected", "relay = 5", &[]),
    ("duration_without_unit", "[relay]\npoll_interval = 5", &[]),
    ("duration_with_wrong_unit", "[relay]\npoll_interval = \"5 parsecs\"", &[]),
    ("size_without_unit", "[relay]\nbatch_bytes = 1024", &[]),
    ("text_for_number", "[relay]\nbatch_events = \"many\"", &[]),
    ("number_too_large_for_its_type", "[relay]\nbatch_events = 5000000000", &[]),
    ("negative_number", "[relay]\nbatch_events = -1", &[]),
    ("table_for_text", "[log]\nlevel = { all = \"debug\" }", &[]),
    ("date_for_text", "[log]\nlevel = 2026-11-21", &[]),
    ("text_for_choice", "[relay]\nwake = \"sometimes\"", &[]),
    ("number_for_choice", "[relay]\nwake = 1", &[]),
    ("bad_listen", "[admin]\nlisten = \"localhost\"", &[]),
    ("several_wrong_types", "[admin]\nlisten = 5\n[log]\nformat = \"xml\"\nlevel = true", &[]),
    ("zero_batch", "[relay]\nbatch_events = 0", &[]),
    ("zero_timeout", "[shutdown]\ngrace = \"0s\"", &[]),
    ("huge_interval", "[relay]\nidle_interval = \"1h\"", &[]),
    ("several_out_of_range", "[relay]\nbatch_events = 0\nbatch_bytes = \"1B\"", &[]),
    ("poll_longer_than_idle", "[relay]\npoll_interval = \"1s\"\nidle_interval = \"50ms\"", &[]),
    ("bad_relay_name", "[relay]\nname = \"a/b\"", &[]),
    ("empty_source", "[relay]\nsource = \"\"", &[]),
    ("bad_log_level", "[log]\nlevel = \"loud\"", &[]),
    ("template_without_prefix", "[route]\nsubject = \"{event_type}\"", &[]),
    ("template_with_unknown_field", "[route]\nsubject = \"events.{type}\"", &[]),
    ("template_outside_of_the_stream", "[route]\nsubject = \"orders.{event_type}\"", &[]),
    ("duplicate_table", "[log]\nlevel = \"info\"\n[log]\nformat = \"text\"", &[]),
    ("duplicate_key", "[log]\nlevel = \"info\"\nlevel = \"warn\"", &[]),
    ("syntax_without_quotes", "[log]\nlevel = info", &[]),
    ("syntax_unclosed", "[log]\nlevel = \"info", &[]),
    ("variable_unknown", "", &[("POSTRIDER__RELAY__BATCH_SIZE", "5")]),
    ("variable_of_unknown_table", "", &[("POSTRIDER__REALY__BATCH_EVENTS", "5")]),
    ("variable_without_key", "", &[("POSTRIDER__RELAY", "5")]),
    ("variable_with_text_for_number", "", &[("POSTRIDER__RELAY__BATCH_EVENTS", "many")]),
    ("variable_with_wrong_unit", "", &[("POSTRIDER__NATS__ACK_TIMEOUT", "5")]),
    ("variable_with_text_for_boolean", "", &[("POSTRIDER__STREAM__CREATE", "maybe")]),
    ("variable_empty", "", &[("POSTRIDER__DATABASE__URL", "")]),
    ("variable_out_of_range", "", &[("POSTRIDER__RELAY__RETENTION", "0s")]),
];

/// Mistakes that need a whole file of their own: a name, and the parts of the file.
const MISTAKEN_FILES: &[(&str, &[&str])] = &[
    ("missing_database_url", &[NATS, STREAM]),
    ("missing_everything", &["[log]\nlevel = \"info\"\n"]),
    ("missing_subjects", &[DATABASE, NATS, "[stream]\nname = \"EVENTS\"\ncreate = true\n"]),
    ("schema_with_injection", &[DATABASE, "schema = 'x\"; drop table y--'\n", NATS, STREAM]),
    ("schema_too_long", &[DATABASE, "schema = \"a234567890b234567890c234567890d234567890e\"\n"]),
    ("stream_name_with_dot", &[DATABASE, NATS, "[stream]\nname = \"MY.EVENTS\"\n"]),
    (
        "bad_subject",
        &[DATABASE, NATS, "[stream]\nname = \"E\"\nsubjects = [\"a..b\", \"a.>.b\"]\n"],
    ),
    ("subjects_not_a_list", &[DATABASE, NATS, "[stream]\nname = \"E\"\nsubjects = \"events.>\"\n"]),
    ("window_too_short", &[DATABASE, NATS, STREAM, "create = true\nduplicate_window = \"10s\"\n"]),
    ("age_too_short", &[DATABASE, NATS, STREAM, "create = true\nmax_age = \"1m\"\n"]),
    (
        "two_logins",
        &[DATABASE, NATS, "token = \"canary\"\nuser = \"me\"\npassword = \"canary\"\n", STREAM],
    ),
    ("user_without_password", &[DATABASE, NATS, "user = \"me\"\n", STREAM]),
    ("certificate_without_key", &[DATABASE, NATS, "tls_cert = \"postrider.toml\"\n", STREAM]),
    (
        "url_of_another_database",
        &["[database]\nurl = \"mysql://app:canary@h/app\"\n", NATS, STREAM],
    ),
    ("url_and_url_file", &[DATABASE, "url_file = \"database-url\"\n", NATS, STREAM]),
    ("url_file_missing", &["[database]\nurl_file = \"nowhere/database-url\"\n", NATS, STREAM]),
    ("url_file_holds_the_secret", &[DATABASE, NATS, "password_file = \"can\\nary\"\n", STREAM]),
    ("url_file_is_a_directory", &["[database]\nurl_file = \"conf.d\"\n", NATS, STREAM]),
    ("url_file_is_empty", &["[database]\nurl_file = \"empty\"\n", NATS, STREAM]),
    ("number_for_secret", &[DATABASE, NATS, "user = \"me\"\npassword = 8861234\n", STREAM]),
    ("list_for_secret", &["[database]\nurl = [\"canary\"]\n", NATS, STREAM]),
    ("syntax_at_secret", &["[database]\nurl = \"postgresql://app:canary@h/app\n", NATS, STREAM]),
    ("nats_url_without_scheme", &[DATABASE, "[nats]\nurl = \"canary@127.0.0.1\"\n", STREAM]),
];

#[test]
fn every_mistake_is_reported_with_its_place_and_its_remedy() {
    let mut table = String::new();
    for (name, text, variables) in MISTAKES {
        // Keys before the first table belong to the top level of the file.
        let is_at_top = !text.starts_with('[');
        let file =
            if is_at_top { format!("{text}\n{MINIMAL}") } else { format!("{MINIMAL}{text}") };
        let mut sandbox = Sandbox::new().file("postrider.toml", &file);
        let mut input = (*text).to_owned();
        for (variable, value) in *variables {
            sandbox = sandbox.variable(variable, value);
            input = format!("{input}{variable}={value}");
        }
        table.push_str(&row(name, &input, &refusal(name, &sandbox)));
    }
    for (name, parts) in MISTAKEN_FILES {
        let sandbox = Sandbox::new()
            .file("postrider.toml", &parts.concat())
            .file("conf.d/README", "not a configuration file")
            .file("database-url", "postgresql://app:canary@h/app")
            .file("empty", "\n");
        table.push_str(&row(name, &parts.concat(), &refusal(name, &sandbox)));
    }
    insta::assert_snapshot!("mistakes", table);
}

/// An entry of the snapshot: the name of the mistake, the input, and the program's refusal.
fn row(name: &str, input: &str, refusal: &str) -> String {
    let input = input.trim_end().replace('\n', "\n  | ");
    format!("{name}\n  | {input}\n{refusal}\n")
}

/// Error output for a configuration that has to be refused.
fn refusal(name: &str, sandbox: &Sandbox) -> String {
    let finished = sandbox.run(&["config", "show"]);
    assert_eq!(finished.code, Some(78), "{name}: {finished:?}");
    assert_eq!(finished.stdout, "", "{name}");
    assert!(!finished.stderr.contains("canary"), "{name}: {}", finished.stderr);
    assert!(!finished.stderr.contains("8861234"), "{name}: {}", finished.stderr);
    finished.stderr
}

#[test]
fn stronger_layers_win_and_every_value_knows_its_origin() {
    let sandbox = Sandbox::new()
        .file(
            "etc/p.toml",
            &format!("{MINIMAL}[relay]\nname = \"file\"\nsource = \"file\"\nbatch_events = 1\n"),
        )
        .file("etc/conf.d/20-late.toml", "[relay]\nname = \"late\"\nbatch_events = 3\n")
        .file("etc/conf.d/10-early.toml", "[relay]\nsource = \"early\"\nname = \"early\"\n")
        .file("etc/conf.d/30-ignored.txt", "[relay]\nname = \"ignored\"\n")
        .file("etc/conf.d/.hidden.toml", "[relay]\nname = \"hidden\"\n")
        .variable("POSTRIDER__RELAY__BATCH_EVENTS", "4")
        .variable("POSTRIDER__STREAM__SUBJECTS", "events.>, other.*")
        .variable("POSTRIDER_PORT", "tcp://10.0.0.1:80")
        .variable("DATABASE_URL", "postgresql://other@h/other");
    let args = ["config", "show", "--config", "etc/p.toml", "--set", "relay.batch_events=5"];
    let finished = sandbox.run(&args);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!(finished.stdout);
}

#[test]
fn file_is_searched_for_in_a_fixed_order() {
    let named = |name: &str| format!("{MINIMAL}[relay]\nname = \"{name}\"\n");
    let sandbox = || {
        Sandbox::new()
            .file("postrider.toml", &named("local"))
            .file("variable.toml", &named("variable"))
            .file("flag.toml", &named("flag"))
    };
    let by_variable = || sandbox().variable("POSTRIDER_CONFIG", "variable.toml");
    let name = |sandbox: Sandbox, args: &[&str]| {
        let finished = sandbox.run(&[&["config", "show"], args].concat());
        let lines = finished.stdout.lines().filter(|line| line.starts_with("name = "));
        lines.map(str::to_owned).next().unwrap_or_else(|| panic!("{finished:?}"))
    };
    assert_eq!(name(sandbox(), &[]), "name = \"local\"  # ./postrider.toml:10");
    assert_eq!(name(by_variable(), &[]), "name = \"variable\"  # variable.toml:10");
    assert_eq!(name(by_variable(), &["--config", "flag.toml"]), "name = \"flag\"  # flag.toml:10");
}

#[test]
fn file_that_was_asked_for_must_exist() {
    let sandbox = Sandbox::new().file("postrider.toml", MINIMAL);
    let finished = sandbox.run(&["config", "show", "--config", "nowhere.toml"]);
    assert_eq!(finished.code, Some(78));
    insta::assert_snapshot!("missing_file_of_the_flag", finished.stderr);
    let sandbox = sandbox.variable("POSTRIDER_CONFIG", "neither.toml");
    let finished = sandbox.run(&["config", "show"]);
    assert_eq!(finished.code, Some(78));
    insta::assert_snapshot!("missing_file_of_the_variable", finished.stderr);
}

#[test]
fn environment_alone_is_enough() {
    let sandbox = Sandbox::new()
        .variable("DATABASE_URL", "postgresql://app@db/app")
        .variable("NATS_URL", "nats://broker")
        .variable("NATS_USER", "me")
        .variable("NATS_PASSWORD", "canary")
        .variable("POSTRIDER__STREAM__NAME", "EVENTS");
    let shown = sandbox.run(&["config", "show"]).stdout;
    for line in [
        "url = \"postgresql://***@db/app\"  # environment variable DATABASE_URL",
        "url = \"nats://broker\"  # environment variable NATS_URL",
        "password = \"***\"  # environment variable NATS_PASSWORD",
        "name = \"EVENTS\"  # environment variable POSTRIDER__STREAM__NAME",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
}

#[test]
fn variables_of_others_do_not_mix_with_our_own_login() {
    let sandbox = Sandbox::new()
        .file("postrider.toml", &[DATABASE, NATS, "token = \"canary\"\n", STREAM].concat())
        .variable("NATS_URL", "nats://elsewhere")
        .variable("NATS_USER", "me")
        .variable("NATS_PASSWORD", "canary")
        .variable("DATABASE_URL", "postgresql://elsewhere/app");
    let finished = sandbox.run(&["config", "show"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("# user is not set"), "{}", finished.stdout);
    assert!(!finished.stdout.contains("elsewhere"), "{}", finished.stdout);
}

#[test]
fn variable_that_lacks_an_underscore_is_warned_of() {
    let sandbox = Sandbox::new()
        .file("postrider.toml", MINIMAL)
        .variable("POSTRIDER_RELAY_BATCH_EVENTS", "5")
        .variable("POSTRIDER_SERVICE_HOST", "10.0.0.1");
    let finished = sandbox.run(&["config", "show"]);
    let text = "POSTRIDER_RELAY_BATCH_EVENTS is not read: write POSTRIDER__RELAY__BATCH_EVENTS";
    assert!(finished.stderr.contains(text), "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
}

#[test]
fn documented_file_uncommented_is_the_defaults() {
    let sandbox = Sandbox::new().file("as_it_is.toml", DOCUMENTED);
    let uncommented: String = DOCUMENTED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(char::is_alphabetic) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(uncommented, DOCUMENTED);
    let sandbox = sandbox.file("uncommented.toml", &uncommented);
    let values = |file: &str| {
        let finished = sandbox.run(&["config", "show", "--json", "--config", file]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let mut shown: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        let keys = shown.as_object_mut().unwrap().values_mut();
        for key in keys.flat_map(|section| section.as_object_mut().unwrap().values_mut()) {
            *key = key["value"].take();
        }
        shown
    };
    // Required keys have no default. The documented file has examples for them.
    let mut defaults = serde_json::to_value(Config::default()).unwrap();
    defaults["database"]["url"] = "postgresql://***@127.0.0.1:5432/app".into();
    defaults["nats"]["url"] = "nats://127.0.0.1:4222".into();
    defaults["stream"]["name"] = "EVENTS".into();
    defaults["stream"]["subjects"] = vec!["events.>"].into();
    assert_eq!(values("uncommented.toml"), defaults);
    assert_eq!(values("as_it_is.toml"), defaults);
}

#[test]
fn documented_file_has_every_key_with_its_range() {
    let mut documented = BTreeSet::new();
    let mut section = "";
    let mut prose = String::new();
    let ranges = bounds::all(&Config::default());
    for line in DOCUMENTED.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let key = line.trim_start_matches(['#', ' ']).split_once(" = ").map(|(key, _)| key);
        match key.filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_')) {
            Some(key) => {
                let key = format!("{section}.{key}");
                if let Some(bound) = ranges.iter().find(|bound| bound.key == key) {
                    assert!(prose.contains(&bound.range), "{key} does not say {}", bound.range);
                }
                documented.insert(key);
                prose.clear();
            }
            None => prose.push_str(line),
        }
    }
    let mut keys = BTreeSet::new();
    for (section, values) in serde_json::to_value(Config::default()).unwrap().as_object().unwrap() {
        keys.extend(values.as_object().unwrap().keys().map(|key| format!("{section}.{key}")));
    }
    assert_eq!(documented, keys);
}

#[test]
fn listener_that_other_machines_reach_is_warned_of() {
    let listen = |address: &str| {
        let admin = format!("[admin]\nlisten = \"{address}\"\nhosts = [\"relay.internal\"]\n");
        let sandbox = Sandbox::new().file("postrider.toml", &format!("{MINIMAL}{admin}"));
        sandbox.run(&["config", "show"]).stderr
    };
    let warning = listen("0.0.0.0:8085");
    assert!(warning.contains("WARN") && warning.contains("set admin.listen to 127.0.0.1:8085"));
    for address in ["127.0.0.1:8085", "[::1]:8085", "off"] {
        assert_eq!(listen(address), "", "{address}");
    }
}

#[test]
fn login_in_the_url_of_nats_excludes_every_other_and_must_be_one() {
    let refusal = |nats: &str| {
        let config = [DATABASE, "[nats]\n", nats, STREAM].concat();
        let finished = Sandbox::new().file("postrider.toml", &config).run(&["config", "show"]);
        assert_eq!(finished.code, Some(78), "{finished:?}");
        assert!(!finished.stderr.contains("canary"), "{finished:?}");
        finished.stderr
    };
    let text = refusal("url = \"nats://me:canary@h\"\ntoken = \"canary\"\n");
    assert!(text.contains("nats.token and the login in nats.url exclude each other"), "{text}");
    let text = refusal("url = \"nats://me:canary1@h,nats://me:canary2@i\"\n");
    assert!(text.contains("nats.url contains different logins"), "{text}");
}

#[test]
fn every_shipped_file_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let sandbox = Sandbox::new()
            .file("postrider-database-url", "postgresql://app:canary@db/app\n")
            .file("postrider-nats.creds", "")
            .variable("CREDENTIALS_DIRECTORY", "$DIR");
        let finished = sandbox.run(&["config", "show", "--config", path.to_str().unwrap()]);
        // The sidecar's listener must be reachable from other hosts, so the warning about it is
        // expected.
        let warned =
            finished.stderr.lines().filter(|line| !line.contains("admin.listen 0.0.0.0:8085"));
        assert_eq!((finished.code, warned.count()), (Some(0), 0), "{path:?}: {finished:?}");
        count += 1;
    }
    assert_eq!(count, 4);
}
