//! Loads the configuration: finds the file, merges the layers, and reports every problem at once.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use figment::{Figment, error::Error, value::Value};

use super::{
    Config,
    error::{ConfigError, Problem},
    fallback, keys,
    layers::{self, Layer, Numbered},
    libpq::Libpq,
    mismatch, resolve, routes, secret_files, unknown, warnings,
};

pub use super::origin::{Notice, Origins, Scope};

/// The configuration file in the working directory, for development.
const LOCAL_FILE: &str = "./postrider.toml";

/// The configuration file of an installed daemon.
const SYSTEM_FILE: &str = "/etc/postrider/postrider.toml";

/// The environment variable that names the configuration file.
const FILE_VARIABLE: &str = "POSTRIDER_CONFIG";

/// Sources of a configuration.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// The environment.
    pub variables: Vec<(OsString, OsString)>,
    /// The `KEY=VALUE` of every `--set`.
    pub settings: Vec<String>,
}

impl Sources {
    /// The sources of this process, with what its command line said.
    pub fn from_environment(file: Option<PathBuf>, settings: Vec<String>) -> Self {
        Self { file, variables: std::env::vars_os().collect(), settings }
    }
}

/// A valid configuration with its routes and origins.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration that all routes share, with the keys of the first route.
    pub config: Config,
    /// Place where each of its keys was written.
    pub origins: Origins,
    /// The routes, at least one, in the order of the file. When events may match none of them, one
    /// more route at the end takes these, unless `relay.unrouted` is `off`.
    pub routes: Vec<OneRoute>,
    /// Messages about the configuration for the log, which starts only after it is loaded.
    pub notices: Vec<Notice>,
}

/// The configuration as one route sees it.
#[derive(Debug, Clone)]
pub struct OneRoute {
    /// The configuration.
    pub config: Config,
    /// Place where each key was written.
    pub origins: Origins,
}

impl Loaded {
    /// The configuration of each route, including the route of unrouted events.
    pub fn configs(&self) -> Vec<Config> {
        self.routes.iter().map(|route| route.config.clone()).collect()
    }
}

impl Config {
    /// Whether this is the route, or the relay, of that name.
    pub fn is_of(&self, name: &str) -> bool {
        self.relay.name.as_str() == name || self.route.name == name
    }

    /// Loads the configuration: defaults, then the file, then `conf.d/*.toml` beside it in the
    /// order of their names, then `POSTRIDER__SECTION__KEY` variables, then `--set`.
    ///
    /// # Errors
    ///
    /// Every problem that was found, each with its place and what to do about it.
    pub fn load(sources: &Sources, scope: Scope) -> Result<Loaded, ConfigError> {
        let mut notices = Vec::new();
        let file = find_file(sources, &mut notices);
        let layers = read_layers(sources, file.as_deref())?;
        let (mut loaded, mut problems) = (Vec::new(), Vec::new());
        for layers in routes::split(layers)? {
            let name = routes::name_of(&layers);
            for (layers, shard) in routes::shards(&layers) {
                let one = Self::load_one(layers, sources, (scope, file.as_deref()));
                match one.and_then(|route| routes::numbered(route, shard)) {
                    Ok(route) => {
                        loaded.push(route);
                        problems.push((name.clone(), Vec::new()));
                    }
                    Err(error) => problems.push((name.clone(), error.problems)),
                }
            }
        }
        refuse(routes::merged(&problems))?;
        refuse(routes::problems(&loaded))?;
        for OneRoute { config, origins } in &loaded {
            for notice in warnings::all(config, origins, &sources.variables) {
                if !notices.contains(&notice) {
                    notices.push(notice);
                }
            }
        }
        loaded.extend(routes::unrouted(&loaded));
        let name = |route: &OneRoute| route.config.relay.name.as_str().to_owned();
        let siblings: Vec<_> = loaded.iter().map(name).collect();
        for route in &mut loaded {
            route.config.relay.siblings.clone_from(&siblings);
        }
        let Some(OneRoute { config, origins }) = loaded.first().cloned() else {
            return Err(ConfigError { problems: vec![Problem::new("there is no route")] });
        };
        Ok(Loaded { config, origins, routes: loaded, notices })
    }

    /// Loads the configuration of one route from its layers: defaults, file, environment, options.
    fn load_one(
        mut layers: Vec<Layer>,
        sources: &Sources,
        (scope, file): (Scope, Option<&Path>),
    ) -> Result<OneRoute, ConfigError> {
        let mut problems: Vec<Problem> =
            layers.iter_mut().flat_map(unknown::take_unknown).collect();
        layers.splice(0..0, fallback::layers(&layers, &sources.variables));
        let (mut config, mut origins) = merge(&layers, &mut problems);
        // Unknown keys and wrong types end the loading here, before missing keys are reported: a
        // missing key may only be misspelt.
        refuse(problems)?;

        config.database.libpq = Libpq::of(&sources.variables);
        let credentials = layers::variable(&sources.variables, "CREDENTIALS_DIRECTORY");
        let credentials = credentials.map(PathBuf::from);
        let places = secret_files::Places { credentials, origins: &mut origins };
        refuse(secret_files::read(&mut config, places))?;
        refuse(resolve::problems(&config, &origins, (scope, file)))?;
        Ok(OneRoute { config, origins })
    }
}

/// The configuration file: the requested one, else the first that exists.
fn find_file(sources: &Sources, notices: &mut Vec<Notice>) -> Option<PathBuf> {
    let variable = layers::variable(&sources.variables, FILE_VARIABLE).map(PathBuf::from);
    if let Some(file) = sources.file.clone().or(variable) {
        return Some(file);
    }
    if Path::new(LOCAL_FILE).exists() {
        let text = format!("using {LOCAL_FILE} of the working directory, not {SYSTEM_FILE}");
        notices.push(Notice::Info(text));
        return Some(PathBuf::from(LOCAL_FILE));
    }
    Path::new(SYSTEM_FILE).exists().then(|| PathBuf::from(SYSTEM_FILE))
}

fn refuse(problems: Vec<Problem>) -> Result<(), ConfigError> {
    if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
}

/// Reads every layer, in ascending order of precedence.
fn read_layers(sources: &Sources, file: Option<&Path>) -> Result<Vec<Layer>, ConfigError> {
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    let mut keep = |layer: Result<Layer, Problem>| match layer {
        Ok(layer) => layers.push(layer),
        Err(problem) => problems.push(problem),
    };
    if let Some(file) = file {
        keep(Layer::file(file));
        match layers::conf_d(file) {
            Ok(files) => files.iter().for_each(|file| keep(Layer::file(file))),
            Err(problem) => keep(Err(problem)),
        }
    }
    layers::from_variables(&sources.variables).into_iter().for_each(&mut keep);
    sources.settings.iter().map(|setting| layers::from_setting(setting)).for_each(&mut keep);
    refuse(problems)?;
    Ok(layers)
}

/// Merges the layers. A value of the wrong type is reported and replaced by its default, so that
/// one run reports all of them.
fn merge(layers: &[Layer], problems: &mut Vec<Problem>) -> (Config, Origins) {
    let numbered = layers.iter().enumerate().map(|(number, layer)| Numbered(number, layer));
    let mut figment = numbered.fold(Figment::new(), Figment::merge);

    let mut origins = Origins::default();
    for key in keys::all() {
        let metadata = figment.find_metadata(&key);
        let layer = metadata.and_then(|found| layers.get(found.name.parse::<usize>().ok()?));
        if let Some(layer) = layer {
            origins.set(&key, layer.origin_of(&key));
        }
    }
    // Each pass removes one wrong value, so there are at most as many passes as keys.
    for _ in keys::all() {
        match figment.extract::<Config>() {
            Ok(config) => return (config, origins),
            Err(errors) => {
                for error in errors {
                    let key = key_of(&error);
                    let problem = mismatch::problem(&key, &error.kind).at(origins.of(&key));
                    problems.push(problem);
                    figment = figment.merge((key.as_str(), default_of(&key)));
                }
            }
        }
    }
    (Config::default(), origins)
}

/// The key of the wrong value; an item of a list counts as its list.
fn key_of(error: &Error) -> String {
    error.path.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(".")
}

fn default_of(key: &str) -> Value {
    keys::template(key).unwrap_or_else(layers::nothing)
}
