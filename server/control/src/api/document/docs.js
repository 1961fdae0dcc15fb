// Shows the API's description: every operation with its parameters, its body and its answers.
"use strict";

const element = (name, text, children = []) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

const marked = (name, mark, text) => {
  const made = element(name, text);
  made.className = mark;
  return made;
};

// A schema in words, as an object is written; those that are named are shown once, inside.
const worded = (schema, named, depth = 0) => {
  if (!schema) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return depth > 4 ? name : worded(named[name], named, depth + 1);
  }
  const either = schema.oneOf || schema.anyOf;
  if (either) return either.map((one) => worded(one, named, depth + 1)).join(" | ");
  if (schema.allOf) return schema.allOf.map((one) => worded(one, named, depth)).join(" and ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  const kind = [].concat(schema.type || "any").join(" | ");
  if (schema.items) return `[ ${worded(schema.items, named, depth + 1)} ]`;
  if (!schema.properties) return kind;
  const indent = "  ".repeat(depth + 1);
  const needed = schema.required || [];
  const lines = Object.entries(schema.properties).map(([name, one]) => {
    const about = one.description ? `   // ${one.description.replace(/\s+/g, " ")}` : "";
    const mark = needed.includes(name) ? "" : "?";
    return `${indent}${name}${mark}: ${worded(one, named, depth + 1)}${about}`;
  });
  return `{\n${lines.join("\n")}\n${"  ".repeat(depth)}}`;
};

const bodies = (content, named) =>
  Object.entries(content || {}).flatMap(([kind, one]) => [
    element("p", "", [element("code", kind)]),
    element("pre", worded(one.schema, named)),
  ]);

const parameters = (all, named) => {
  const rows = (all || []).map((one) =>
    element("tr", "", [
      element("td", "", [element("code", one.name)]),
      element("td", one.in),
      element("td", "", [element("code", worded(one.schema, named))]),
      element("td", one.description || ""),
    ]),
  );
  return rows.length ? [element("h4", "Parameters"), element("table", "", rows)] : [];
};

const operation = (method, path, one, named) => {
  const summary = element("summary", "", [
    marked("span", "method", method),
    element("code", path),
    marked("span", "what", `  ${one.summary || ""}`),
  ]);
  const parts = [summary];
  if (one.description) parts.push(element("p", one.description));
  parts.push(...parameters(one.parameters, named));
  if (one.requestBody) {
    parts.push(element("h4", "Body"));
    if (one.requestBody.description) parts.push(element("p", one.requestBody.description));
    parts.push(...bodies(one.requestBody.content, named));
  }
  for (const [status, answer] of Object.entries(one.responses)) {
    parts.push(element("h4", `${status}: ${answer.description}`));
    parts.push(...bodies(answer.content, named));
  }
  return element("details", "", parts);
};

const show = (api) => {
  const named = (api.components && api.components.schemas) || {};
  document.getElementById("about").textContent = `${api.info.description} All paths begin with ${api.servers[0].url}.`;
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, one] of Object.entries(methods)) {
      const group = (one.tags || ["other"])[0];
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(operation(method, path, one, named));
    }
  }
  const main = document.getElementById("operations");
  for (const [group, operations] of groups) main.append(element("h2", group), ...operations);
};

fetch("openapi.json")
  .then((answer) => answer.json())
  .then(show)
  .catch((error) => {
    document.getElementById("about").textContent = `The description could not be loaded: ${error}`;
  });
