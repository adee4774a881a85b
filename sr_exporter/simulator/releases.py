"""Releases of OpenSIPS that can be simulated: what tells them apart to a client.

The lists are the recorded answers of `which`, of servers with the modules one would expect.
They are whole because a short name is ambiguous, or not, by what other modules brought along.
"""

from __future__ import annotations

from dataclasses import dataclass

from sr_exporter.wire.answers import Names


@dataclass(frozen=True, slots=True)
class Release:
    version: str
    names: Names

    @property
    def server(self) -> str:
        return f"OpenSIPS ({self.version} (x86_64/linux))"


_WHICH_3_6 = """
    get_statistics list_statistics reset_statistics reset_all_statistics uptime version pwd arg
    which ps kill log_level xlog_level log_level_filter log_mute_state shm_check cache_store
    cache_fetch cache_remove event_subscribe events_list subscribers_list raise_event
    list_tcp_conns mem_pkg_dump mem_shm_dump mem_rpm_dump reload_routes sr_get_status
    sr_list_status sr_list_reports sr_list_identifiers help list_blacklists check_blacklists
    check_blacklist add_blacklist_rule del_blacklist_rule tcp_trace dbt_dump dbt_reload
    t_uac_dlg t_uac_cancel t_hash t_reply rand_set_prob rand_reset_prob rand_get_prob
    get_config_hash check_config_hash shv_get shv_set httpd_list_root_path cache_remove_chunk
    cache_fetch_chunk clusterer_reload clusterer_set_status clusterer_list
    clusterer_list_topology cluster_send_mi cluster_broadcast_mi clusterer_list_cap
    clusterer_set_cap_status clusterer_list_shtags clusterer_shtag_set_active
    clusterer_remove_node dlg_list dlg_list_ctx dlg_end_dlg dlg_db_sync dlg_restore_db
    dlg_cluster_sync profile_get_size profile_list_dlgs profile_get_values list_all_profiles
    profile_end_dlgs dlg_push_var dlg_send_sequential dlg_set_profile dlg_unset_profile ul_rm
    ul_rm_contact ul_dump ul_flush ul_add ul_show_contact ul_sync ul_cluster_sync reg_list
    reg_reload reg_enable reg_disable reg_force_register ds_set_state ds_list ds_reload
    ds_push_script_attrs dr_reload dr_gw_status dr_carrier_status dr_number_routing
    dr_reload_status dr_enable_probing dp_reload dp_translate dp_show_partition pike_list
    pike_rm sql_cacher_reload lb_reload lb_resize lb_list lb_status
"""

_WHICH_4_0 = """
    statistics:get statistics:list statistics:reset statistics:reset_all core:uptime
    core:version core:pwd core:arg core:which core:ps core:kill core:log_level core:xlog_level
    core:profiling_proc core:log_level_filter core:log_mute_state core:reload_routes core:help
    tcp:list tcp:close mem:shm_check mem:pkg_dump mem:shm_dump mem:rpm_dump cache:store
    cache:fetch cache:remove status_report:get status_report:status status_report:reports
    status_report:identifiers evi:subscribe evi:list evi:subscribers evi:raise blacklists:list
    blacklists:check_all blacklists:check blacklists:add_rule blacklists:del_rule tcp:trace
    db_text:dump db_text:reload tm:uac_dlg tm:uac_cancel tm:hash tm:reply cfgutils:rand_set_prob
    cfgutils:rand_reset_prob cfgutils:rand_get_prob cfgutils:get_config_hash
    cfgutils:check_config_hash cfgutils:shv_get cfgutils:shv_set httpd:list_root_path
    cachedb_local:remove_chunk cachedb_local:fetch_chunk clusterer:reload clusterer:set_status
    clusterer:list clusterer:list_topology clusterer:send_mi clusterer:broadcast_mi
    clusterer:list_cap clusterer:set_cap_status clusterer:list_shtags clusterer:shtag_set_active
    clusterer:remove_node dialog:list dialog:list_ctx dialog:end_dlg dialog:db_sync
    dialog:restore_db dialog:cluster_sync dialog:profile_get_size dialog:profile_list_dlgs
    dialog:profile_get_values dialog:list_all_profiles dialog:profile_end_dlgs dialog:push_var
    dialog:send_sequential dialog:set_profile dialog:unset_profile usrloc:rm usrloc:rm_contact
    usrloc:dump usrloc:flush usrloc:add usrloc:show_contact usrloc:sync usrloc:cluster_sync
    uac_registrant:list uac_registrant:reload uac_registrant:enable uac_registrant:disable
    uac_registrant:force_register uac_registrant:upsert uac_registrant:delete
    dispatcher:set_state dispatcher:list dispatcher:reload dispatcher:push_script_attrs
    drouting:reload drouting:gw_status drouting:carrier_status drouting:number_routing
    drouting:reload_status drouting:enable_probing dialplan:reload dialplan:translate
    dialplan:show_partition pike:list pike:rm sql_cacher:reload load_balancer:reload
    load_balancer:resize load_balancer:list load_balancer:status
"""

#: Old names of what the simulator answers besides Status/Report.
OLD_NAMES = {"event_subscribe": "evi:subscribe"}

OPENSIPS_3_6 = Release("3.6.8", Names(tuple(_WHICH_3_6.split())))
OPENSIPS_4_0 = Release("4.0.1", Names(tuple(_WHICH_4_0.split()), OLD_NAMES))
RELEASES = {release.version: release for release in (OPENSIPS_3_6, OPENSIPS_4_0)}
