// Validation against export/schema/manifest.schema.json, the contract that Python and C++ share.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace floats_rt {

// The schema, compiled in, without what it says of the recipe: how a network was trained is nothing to this library,
// and what newer trainers have to say of it must not keep it from running a bundle. Beyond the schema no text but the
// recipe's may hold a control character, as in Python.
const nlohmann::json& manifest_schema();

// How schema_violation ends where there is a field that the schema does not know.
constexpr const char* kUnknownField = ": not a field that is known";

// Fills in the defaults of `schema` and says where and how `value` breaks it, for example "lam.mode: not one of the
// values allowed"; empty if it does not. Knows the keywords of JSON Schema 2020-12 that the schema uses: see kAsserted.
std::string schema_violation(nlohmann::json& value, const nlohmann::json& schema);

// The first keyword anywhere in `schema` that schema_violation does not know; empty if it knows all.
std::string unknown_keyword(const nlohmann::json& schema);

}  // namespace floats_rt
