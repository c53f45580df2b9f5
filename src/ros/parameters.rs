//! The parameters of a node: declared once, validated as a whole, refused with a reason.
//!
//! r2r's own handlers know neither ranges nor rejection nor `/parameter_events`, so the six services of
//! `rcl_interfaces` are served here.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use futures::StreamExt as _;
use parking_lot::Mutex;
use r2r::rcl_interfaces::{msg, srv};
use r2r::{Clock, ParameterValue, Publisher, QosProfile};
use tokio::sync::watch;

use crate::config::{ParameterRange, ParameterValue as Value};

/// One parameter as the world may see and set it.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// Its default; every later value has the same type.
    pub default: ParameterValue,
    /// What a value may be.
    pub range: ParameterRange,
    /// What it does, with its unit.
    pub description: String,
    /// Whether it can only be given at the start.
    pub read_only: bool,
}

/// Parameter values by name.
pub type Values = BTreeMap<String, ParameterValue>;

/// From all values to what the program uses, or one sentence why not.
pub type Validate<C> = Box<dyn Fn(&Values) -> Result<C, String> + Send + Sync>;

/// Serves the parameters of `node`, starting from the defaults and what was given on the command line.
///
/// Every accepted change gives the receiver a new, valid configuration. Fails with a sentence when the values given at
/// the start are refused.
pub fn serve<C: Send + Sync + 'static>(
    node: &mut r2r::Node,
    declarations: Vec<Declaration>,
    validate: Validate<C>,
) -> Result<watch::Receiver<Arc<C>>, ParametersError> {
    let given: Vec<(String, ParameterValue)> = {
        let params = node.params.lock().unwrap_or_else(PoisonError::into_inner);
        params.iter().map(|(name, parameter)| (name.clone(), parameter.value.clone())).collect()
    };
    let mut values: Values = declarations.iter().map(|it| (it.name.clone(), it.default.clone())).collect();
    for (name, value) in given {
        match declarations.iter().find(|it| it.name == name) {
            Some(declaration) => {
                let value = declaration.check(&value).map_err(ParametersError::Refused)?;
                values.insert(name, value);
            }
            None if name.starts_with("qos_overrides.") => {}
            None => tracing::warn!("parameter {name:?} was given, but this node has none of that name"),
        }
    }
    let config = validate(&values).map_err(ParametersError::Refused)?;
    let (sender, receiver) = watch::channel(Arc::new(config));
    let server = Arc::new(Server {
        declarations,
        values: Mutex::new(values),
        validate,
        config: sender,
        events: Mutex::new(node.create_publisher("/parameter_events", QosProfile::parameter_events())?),
        clock: node.get_ros_clock(),
        node: node.fully_qualified_name()?,
    });
    server.serve(node)?;
    Ok(receiver)
}

/// Why a node cannot start with its parameters.
#[derive(Debug, thiserror::Error)]
pub enum ParametersError {
    /// A value given at the start was refused.
    #[error("{0}")]
    Refused(String),
    /// ROS refused.
    #[error("ROS: {0}")]
    Ros(#[from] r2r::Error),
}

struct Server<C> {
    declarations: Vec<Declaration>,
    values: Mutex<Values>,
    validate: Validate<C>,
    config: watch::Sender<Arc<C>>,
    /// A publisher is `Send` but not `Sync`.
    events: Mutex<Publisher<msg::ParameterEvent>>,
    clock: Arc<std::sync::Mutex<Clock>>,
    node: String,
}

impl<C: Send + Sync + 'static> Server<C> {
    fn serve(self: Arc<Self>, node: &mut r2r::Node) -> r2r::Result<()> {
        let qos = QosProfile::parameters;

        let mut set = node.create_service::<srv::SetParameters::Service>("~/set_parameters", qos())?;
        let server = Arc::clone(&self);
        tokio::spawn(async move {
            while let Some(request) = set.next().await {
                let parameters = &request.message.parameters;
                let results = parameters.iter().map(|it| server.set(std::slice::from_ref(it))).collect();
                request.respond(srv::SetParameters::Response { results }).ok();
            }
        });

        let mut atomic = node
            .create_service::<srv::SetParametersAtomically::Service>("~/set_parameters_atomically", qos())?;
        let server = Arc::clone(&self);
        tokio::spawn(async move {
            while let Some(request) = atomic.next().await {
                let result = server.set(&request.message.parameters);
                request.respond(srv::SetParametersAtomically::Response { result }).ok();
            }
        });

        let mut get = node.create_service::<srv::GetParameters::Service>("~/get_parameters", qos())?;
        let server = Arc::clone(&self);
        tokio::spawn(async move {
            while let Some(request) = get.next().await {
                let values =
                    request.message.names.iter().map(|name| to_message(&server.value(name))).collect();
                request.respond(srv::GetParameters::Response { values }).ok();
            }
        });

        let mut types =
            node.create_service::<srv::GetParameterTypes::Service>("~/get_parameter_types", qos())?;
        let server = Arc::clone(&self);
        tokio::spawn(async move {
            while let Some(request) = types.next().await {
                let types =
                    request.message.names.iter().map(|name| to_message(&server.value(name)).type_).collect();
                request.respond(srv::GetParameterTypes::Response { types }).ok();
            }
        });

        let mut list = node.create_service::<srv::ListParameters::Service>("~/list_parameters", qos())?;
        let server = Arc::clone(&self);
        tokio::spawn(async move {
            while let Some(request) = list.next().await {
                let result = server.list(&request.message.prefixes);
                request.respond(srv::ListParameters::Response { result }).ok();
            }
        });

        let mut describe =
            node.create_service::<srv::DescribeParameters::Service>("~/describe_parameters", qos())?;
        tokio::spawn(async move {
            while let Some(request) = describe.next().await {
                let descriptors = request.message.names.iter().map(|name| self.describe(name)).collect();
                request.respond(srv::DescribeParameters::Response { descriptors }).ok();
            }
        });
        Ok(())
    }

    /// Applies all changes or none.
    fn set(&self, changes: &[msg::Parameter]) -> msg::SetParametersResult {
        let mut values = self.values.lock();
        let mut proposed = values.clone();
        let outcome = changes
            .iter()
            .try_for_each(|change| {
                let declaration = self.declaration(&change.name).ok_or_else(|| {
                    format!(
                        "{}: expected one of {}",
                        change.name,
                        self.names().collect::<Vec<_>>().join(", ")
                    )
                })?;
                let value = declaration.check(&from_message(&change.value))?;
                if declaration.read_only && values.get(&change.name) != Some(&value) {
                    return Err(format!("{} can only be given when the node starts", change.name));
                }
                proposed.insert(change.name.clone(), value);
                Ok(())
            })
            .and_then(|()| (self.validate)(&proposed));
        match outcome {
            Ok(config) => {
                *values = proposed;
                self.config.send_replace(Arc::new(config));
                self.publish_event(changes);
                msg::SetParametersResult { successful: true, reason: String::new() }
            }
            Err(reason) => {
                tracing::warn!("parameter refused: {reason}");
                msg::SetParametersResult { successful: false, reason }
            }
        }
    }

    fn publish_event(&self, changes: &[msg::Parameter]) {
        let event = msg::ParameterEvent {
            stamp: super::time_from_nanos(super::now_ns(&self.clock)),
            node: self.node.clone(),
            changed_parameters: changes.to_vec(),
            ..Default::default()
        };
        // Fails only when the node is gone.
        self.events.lock().publish(&event).ok();
    }

    fn value(&self, name: &str) -> ParameterValue {
        let values = self.values.lock();
        values.get(name).cloned().unwrap_or(ParameterValue::NotSet)
    }

    fn list(&self, prefixes: &[String]) -> msg::ListParametersResult {
        let asked = |name: &str| {
            prefixes.is_empty()
                || prefixes.iter().any(|prefix| {
                    name.strip_prefix(prefix.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                })
        };
        let names: Vec<String> = self.names().filter(|name| asked(name)).map(str::to_owned).collect();
        let mut prefixes: Vec<String> = names
            .iter()
            .filter_map(|name| name.rsplit_once('.'))
            .map(|(prefix, _)| prefix.to_owned())
            .collect();
        prefixes.dedup();
        msg::ListParametersResult { names, prefixes }
    }

    fn describe(&self, name: &str) -> msg::ParameterDescriptor {
        let Some(declaration) = self.declaration(name) else {
            return msg::ParameterDescriptor { name: name.to_owned(), ..Default::default() };
        };
        let mut descriptor = msg::ParameterDescriptor {
            name: name.to_owned(),
            type_: to_message(&declaration.default).type_,
            description: declaration.description.clone(),
            additional_constraints: match declaration.range {
                ParameterRange::Choice(choices) => format!("one of: {}", choices.join(", ")),
                _ => String::new(),
            },
            read_only: declaration.read_only,
            ..Default::default()
        };
        match declaration.range {
            ParameterRange::Any | ParameterRange::Choice(_) => {}
            ParameterRange::Integer { min: from_value, max: to_value } => {
                descriptor.integer_range = vec![msg::IntegerRange { from_value, to_value, step: 0 }];
            }
            ParameterRange::Float { min: from_value, max: to_value } => {
                descriptor.floating_point_range =
                    vec![msg::FloatingPointRange { from_value, to_value, step: 0.0 }];
            }
        }
        descriptor
    }

    fn declaration(&self, name: &str) -> Option<&Declaration> {
        self.declarations.iter().find(|it| it.name == name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.declarations.iter().map(|it| it.name.as_str())
    }
}

impl Declaration {
    /// The value in this parameter's type and range, or one sentence why not. An integer serves as a double.
    fn check(&self, value: &ParameterValue) -> Result<ParameterValue, String> {
        let value = match (&self.default, value) {
            (ParameterValue::Double(_), ParameterValue::Integer(integer)) => {
                ParameterValue::Double(*integer as f64)
            }
            _ => value.clone(),
        };
        if std::mem::discriminant(&value) != std::mem::discriminant(&self.default) {
            let (expected, got) = (type_name(&self.default), type_name(&value));
            return Err(format!("{}: expected {expected}, got {got}", self.name));
        }
        if let Some(known) = from_ros(&value) {
            self.range.check(&self.name, &known).map_err(|error| error.to_string())?;
        }
        Ok(value)
    }
}

/// As the configuration knows it; `None` for types that no parameter has.
pub fn from_ros(value: &ParameterValue) -> Option<Value> {
    match value {
        ParameterValue::Bool(it) => Some(Value::Bool(*it)),
        ParameterValue::Integer(it) => Some(Value::Integer(*it)),
        ParameterValue::Double(it) => Some(Value::Float(*it)),
        ParameterValue::String(it) => Some(Value::Text(it.clone())),
        _ => None,
    }
}

/// As ROS knows it.
pub fn to_ros(value: Value) -> ParameterValue {
    match value {
        Value::Bool(it) => ParameterValue::Bool(it),
        Value::Integer(it) => ParameterValue::Integer(it),
        Value::Float(it) => ParameterValue::Double(it),
        Value::Text(it) => ParameterValue::String(it),
    }
}

fn type_name(value: &ParameterValue) -> &'static str {
    match value {
        ParameterValue::NotSet => "a value that is not set",
        ParameterValue::Bool(_) => "a boolean",
        ParameterValue::Integer(_) => "an integer",
        ParameterValue::Double(_) => "a double",
        ParameterValue::String(_) => "a string",
        ParameterValue::BoolArray(_) => "a boolean array",
        ParameterValue::ByteArray(_) => "a byte array",
        ParameterValue::IntegerArray(_) => "an integer array",
        ParameterValue::DoubleArray(_) => "a double array",
        ParameterValue::StringArray(_) => "a string array",
    }
}

fn to_message(value: &ParameterValue) -> msg::ParameterValue {
    use msg::ParameterType as Type;
    let mut message = msg::ParameterValue::default();
    let type_ = match value.clone() {
        ParameterValue::NotSet => Type::PARAMETER_NOT_SET as u8,
        ParameterValue::Bool(it) => {
            message.bool_value = it;
            Type::PARAMETER_BOOL as u8
        }
        ParameterValue::Integer(it) => {
            message.integer_value = it;
            Type::PARAMETER_INTEGER as u8
        }
        ParameterValue::Double(it) => {
            message.double_value = it;
            Type::PARAMETER_DOUBLE as u8
        }
        ParameterValue::String(it) => {
            message.string_value = it;
            Type::PARAMETER_STRING as u8
        }
        ParameterValue::BoolArray(it) => {
            message.bool_array_value = it;
            Type::PARAMETER_BOOL_ARRAY as u8
        }
        ParameterValue::ByteArray(it) => {
            message.byte_array_value = it;
            Type::PARAMETER_BYTE_ARRAY as u8
        }
        ParameterValue::IntegerArray(it) => {
            message.integer_array_value = it;
            Type::PARAMETER_INTEGER_ARRAY as u8
        }
        ParameterValue::DoubleArray(it) => {
            message.double_array_value = it;
            Type::PARAMETER_DOUBLE_ARRAY as u8
        }
        ParameterValue::StringArray(it) => {
            message.string_array_value = it;
            Type::PARAMETER_STRING_ARRAY as u8
        }
    };
    message.type_ = type_;
    message
}

fn from_message(message: &msg::ParameterValue) -> ParameterValue {
    use msg::ParameterType as Type;
    let message = message.clone();
    match i64::from(message.type_) {
        it if it == Type::PARAMETER_BOOL as i64 => ParameterValue::Bool(message.bool_value),
        it if it == Type::PARAMETER_INTEGER as i64 => ParameterValue::Integer(message.integer_value),
        it if it == Type::PARAMETER_DOUBLE as i64 => ParameterValue::Double(message.double_value),
        it if it == Type::PARAMETER_STRING as i64 => ParameterValue::String(message.string_value),
        it if it == Type::PARAMETER_BOOL_ARRAY as i64 => ParameterValue::BoolArray(message.bool_array_value),
        it if it == Type::PARAMETER_BYTE_ARRAY as i64 => ParameterValue::ByteArray(message.byte_array_value),
        it if it == Type::PARAMETER_INTEGER_ARRAY as i64 => {
            ParameterValue::IntegerArray(message.integer_array_value)
        }
        it if it == Type::PARAMETER_DOUBLE_ARRAY as i64 => {
            ParameterValue::DoubleArray(message.double_array_value)
        }
        it if it == Type::PARAMETER_STRING_ARRAY as i64 => {
            ParameterValue::StringArray(message.string_array_value)
        }
        _ => ParameterValue::NotSet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_for_type_and_range() {
        use ParameterValue::{Bool, Double, Integer, String as Text};
        let check = |default: ParameterValue,
                     range: ParameterRange,
                     value: ParameterValue,
                     expected: Result<_, &str>| {
            let declaration = Declaration {
                name: "p".to_owned(),
                default,
                range,
                description: String::new(),
                read_only: false,
            };
            match (declaration.check(&value), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{got:?} lacks {expected:?}"),
                (got, expected) => panic!("{value:?}: got {got:?}, expected {expected:?}"),
            }
        };
        let unit = ParameterRange::Float { min: 0.0, max: 1.0 };
        check(Double(0.5), unit, Double(0.1), Ok(Double(0.1)));
        check(Double(0.5), unit, Integer(1), Ok(Double(1.0)));
        check(Double(0.5), unit, Double(1.1), Err("from 0 to 1, got 1.1"));
        check(Double(0.5), unit, Double(f64::NAN), Err("got NaN"));
        check(Double(0.5), ParameterRange::Any, Double(f64::INFINITY), Err("finite"));
        check(Double(0.5), unit, Text("x".to_owned()), Err("expected a double, got a string"));
        check(Integer(5), ParameterRange::Integer { min: 1, max: 9 }, Integer(0), Err("from 1 to 9"));
        check(Bool(true), ParameterRange::Any, Integer(1), Err("expected a boolean"));
        check(Text("a".to_owned()), ParameterRange::Any, ParameterValue::NotSet, Err("not set"));
    }

    #[test]
    fn messages_carry_values_unchanged() {
        for value in [
            ParameterValue::NotSet,
            ParameterValue::Bool(true),
            ParameterValue::Integer(-3),
            ParameterValue::Double(0.25),
            ParameterValue::String("x".to_owned()),
            ParameterValue::StringArray(vec!["a".to_owned()]),
            ParameterValue::DoubleArray(vec![1.0]),
            ParameterValue::IntegerArray(vec![1]),
            ParameterValue::BoolArray(vec![true]),
            ParameterValue::ByteArray(vec![1]),
        ] {
            assert_eq!(from_message(&to_message(&value)), value);
        }
    }
}
