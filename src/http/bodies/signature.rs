//! The fields that identify an anomaly.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::Signature;

/// The fields that identify an anomaly.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Signature)]
pub(in crate::http) struct SignatureBody {
    /// The name of the alert or fault.
    #[schema(example = "HighCPU")]
    alert_name: String,
    /// The service or workload in which the anomaly occurs.
    #[schema(example = "api")]
    service: String,
    /// The namespace in which the service runs.
    #[schema(example = "shop")]
    namespace: String,
    /// The kind of error.
    #[schema(example = "OOMKilled")]
    error_type: String,
}

impl From<Signature> for SignatureBody {
    fn from(signature: Signature) -> Self {
        let values = signature.named_fields().map(|(_, value)| value.to_owned());
        let [alert_name, service, namespace, error_type] = values;
        Self { alert_name, service, namespace, error_type }
    }
}
