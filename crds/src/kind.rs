//! Macros that declare our custom resource types: metadata, spec and status, their names in the API,
//! and the words of their statuses.

/// Declares one kind: the object around its spec and status, and how the API names it.
///
/// kube's derive is not used because it makes `spec` a required field when reading: an object that
/// an older schema accepted must not stop a whole reflector.
macro_rules! kind {
    (
        $(#[$doc:meta])*
        $kind:ident, spec $spec:ty, status $status:ty,
        group $group:expr, version $version:expr, plural $plural:expr
    ) => {
        $crate::kind::kind! {
            $(#[$doc])*
            $kind, spec $spec, status $status,
            group $group, version $version, plural $plural,
            scope kube::core::NamespaceResourceScope
        }
    };
    (
        $(#[$doc:meta])*
        $kind:ident, spec $spec:ty, status $status:ty,
        group $group:expr, version $version:expr, plural $plural:expr, scope $scope:ty
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $kind {
            /// `apiVersion` and `kind` as they were read.
            #[serde(flatten, default)]
            pub types: Option<kube::core::TypeMeta>,
            /// Name, namespace and the rest of the standard metadata.
            #[serde(default)]
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// The desired state.
            #[serde(default)]
            pub spec: $spec,
            /// The status that Weft writes.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub status: Option<$status>,
        }

        impl $kind {
            /// An object of this kind with a name and nothing else in its metadata.
            pub fn new(name: &str, spec: $spec) -> Self {
                Self {
                    types: Some(kube::core::TypeMeta::resource::<Self>()),
                    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                        name: Some(name.to_owned()),
                        ..Default::default()
                    },
                    spec,
                    status: None,
                }
            }
        }

        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($kind).into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(
                &mut self,
            ) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use kind;

/// Declares the words of one field of a status, each written as its variant is named.
macro_rules! status_words {
    (
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$word_doc:meta])* $word:ident,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$word_doc])* $word,)+
        }

        impl $name {
            /// Every one of them.
            pub const ALL: [Self; [$(stringify!($word)),+].len()] = [$(Self::$word),+];

            /// As in a status.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => stringify!($word),)+
                }
            }

            /// The one of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|word| word.as_str() == name)
            }
        }
    };
}
pub(crate) use status_words;
