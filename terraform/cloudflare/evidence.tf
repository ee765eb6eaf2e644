# What the gates have found, as src/backup_mx/evidence.py writes it:
# {"mx2": {"version": "…", "config": "…", "tool": "…", "gates": {"inbound": {"verdict": "pass",
# "saw": "…", "at": "2026-11-22T10:00:00Z", "until": "2026-11-23T10:00:00Z", "waits": ["MX"], …}}}}.
# A relay that has not been proven would lose mail where the senders' own patience would not have.
# What has to be in it says var.gates, not the file itself.

locals {
  evidence = try(jsondecode(file("${path.root}/${var.evidence}")), {})

  # By five minutes the clocks of two machines may differ. What is dated later would be fresh for who
  # knows how long.
  latest = timeadd(plantimestamp(), "5m")

  # Of each relay: why nothing of it counts here, "" where it does.
  foreign = {
    for name, relay in var.relays : name => (
      !can(local.evidence[name]) ? "there is none in ${var.evidence}" :
      try(local.evidence[name].version, "") != relay.version ? "it is about another version than the one that was built" :
      try(local.evidence[name].config, "") != var.config ? "it is about another config than the one that was built" :
      try(local.evidence[name].tool, "") != var.tool ? "another backup-mx judged than the one that built (${var.tool}), maybe by less: backup-mx gate run, or build" :
      ""
    )
  }

  # Of each relay and gate: why its proof does not hold, "" where it does.
  wanting = {
    for name, relay in var.relays : name => {
      for gate in keys(var.gates) : gate => try(
        !can(local.evidence[name].gates[gate]) ? "not run yet" :
        timecmp(local.evidence[name].gates[gate].at, "1970-01-01T00:00:00Z") == 0 ? "not run yet" :
        !contains(["pass", "warn"], local.evidence[name].gates[gate].verdict) ? coalesce(local.evidence[name].gates[gate].saw, "it did not pass") :
        timecmp(local.evidence[name].gates[gate].at, local.latest) > 0 ? "it is of the future, ${local.evidence[name].gates[gate].at}: run it again" :
        timecmp(plantimestamp(), local.evidence[name].gates[gate].until) >= 0 ? "stale since ${local.evidence[name].gates[gate].until}" :
        "",
        "it is not what the gates wrote: run it again",
      )
    }
  }

  # Of each relay: why a record of that kind is not published yet, "" where it may be.
  lacking = {
    for name, relay in var.relays : name => {
      for kind in ["A", "MX"] : kind => (
        local.foreign[name] != "" ? local.foreign[name] :
        join("; ", [
          for gate, waits in var.gates : "${gate}: ${local.wanting[name][gate]}"
          if contains(waits, kind) && local.wanting[name][gate] != ""
        ])
      )
    }
  }

  # Of each relay: when the first proof is stale that a record of that kind waits for. While a plan is
  # applied, plantimestamp() is still when it was made, which may be long ago.
  until = {
    for name, relay in var.relays : name => {
      for kind in ["A", "MX"] : kind => try(
        sort([for gate, waits in var.gates : local.evidence[name].gates[gate].until if contains(waits, kind)])[0],
        plantimestamp(),
      )
    }
  }
}
