// Validation against export/schema/manifest.schema.json, the contract that Python and C++ share.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace floats_rt {

// The schema, compiled in.
const nlohmann::json& manifest_schema();

// Where and how `value` breaks `schema`, for example "lam.mode: not one of the values allowed"; empty if it does not.
// Knows the keywords of JSON Schema 2020-12 that the schema uses; see kAsserted and kAnnotations.
std::string schema_violation(const nlohmann::json& value, const nlohmann::json& schema);

// The first keyword anywhere in `schema` that schema_violation does not know; empty if it knows all.
std::string unknown_keyword(const nlohmann::json& schema);

}  // namespace floats_rt
