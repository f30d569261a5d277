//! Reads lists of texts in the configuration.

use serde::{Deserialize, Deserializer};

/// A list, or one text with commas, as the environment gives it.
pub(super) fn text_list<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        Texts(Vec<String>),
        Text(String),
    }
    Ok(match List::deserialize(deserializer)? {
        List::Texts(texts) => texts,
        List::Text(text) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        }
    })
}
