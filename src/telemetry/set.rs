//! How a set of metrics is declared: each with its name and its help, once.

/// Declares a struct of metrics, and `new`, which registers all of them in the order in which they are declared.
macro_rules! metric_set {
    (
        $(#[$of_set:meta])*
        $vis:vis struct $set:ident {
            $( $(#[$of_field:meta])* $seen:vis $field:ident: $kind:ty = $name:literal, $help:literal $(, $made:expr)?; )*
        }
    ) => {
        $(#[$of_set])*
        #[derive(Debug)]
        $vis struct $set {
            $( $(#[$of_field])* $seen $field: $kind, )*
        }

        impl $set {
            pub(super) fn new(registry: &mut ::prometheus_client::registry::Registry) -> Self {
                $(
                    let $field: $kind = $crate::telemetry::set::metric_set!(@made $($made)?);
                    registry.register($name, $help, ::std::clone::Clone::clone(&$field));
                )*
                Self { $($field,)* }
            }
        }
    };
    (@made) => { ::std::default::Default::default() };
    (@made $made:expr) => { $made };
}
pub(super) use metric_set;
