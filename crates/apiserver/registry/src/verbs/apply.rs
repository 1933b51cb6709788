//! Server-side apply, and the bookkeeping of field managers on other writes.

use bytes::Bytes;
use serde_json::Value;
use tiphys_meta::ApiError;

use super::Call;
use super::update::How;
use crate::answer::Answer;
use crate::negotiate::unsupported;
use crate::options::WriteOptions;
use crate::verbs::patch::{JSON, MERGE, STRATEGIC};

impl Call<'_> {
    /// Notes in `managedFields` which fields this write changed.
    pub(crate) fn fields_updated(&self, _old: &Value, _new: &mut Value, _manager: &str) {}

    pub(crate) async fn apply(&mut self, _body: Bytes, _how: How, _options: &WriteOptions) -> Result<Answer, ApiError> {
        Err(unsupported(&[JSON, MERGE, STRATEGIC]))
    }
}
