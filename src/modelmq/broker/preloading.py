"""What a private node runs before RabbitMQ: it loads the modules that RabbitMQ is about to use, all at once.

A module is looked for in some eighty folders in turn, and Erlang before 26 does not remember what is in a folder: a
boot of RabbitMQ 3.10 tries to open fifty thousand files that are not there, and spends nearly half of its time on it.
From 26 on it remembers, and this gains nothing. Whatever goes wrong here is passed over: what is not loaded yet is
loaded when it is used. Sources: `code` and `file:eval/1` in Erlang's kernel reference.
"""

from __future__ import annotations

PROGRAM = """\
%% Also run by short-lived programs of the node's, which have a name by now and need none of it.
case node() =:= nonode@nohost andalso list_to_integer(erlang:system_info(otp_release)) < 26 of
    true ->
        {ok, [Plugins]} = file:consult("enabled_plugins"),
        Keys = fun(Name) ->
            File = code:where_is_file(atom_to_list(Name) ++ ".app"),
            case is_list(File) andalso file:consult(File) of
                {ok, [{application, Name, Told}]} -> {filename:dirname(File), Told};
                _ -> {".", []}
            end
        end,
        Follow = fun
            Follow(Name, Found) when is_map_key(Name, Found) -> Found;
            Follow(Name, Found) ->
                {Folder, Told} = Keys(Name),
                Modules = proplists:get_value(modules, Told, []),
                Needed = proplists:get_value(applications, Told, []),
                lists:foldl(Follow, Found#{Name => {length(Modules), Folder, Modules}}, Needed)
        end,
        Apps = maps:values(lists:foldl(Follow, #{}, [kernel, stdlib, sasl, rabbitmq_prelaunch, rabbit | Plugins])),
        Path = code:get_path(),
        %% The folders with the most modules first.
        code:set_path([Folder || {_, Folder, _} <- lists:reverse(lists:sort(Apps))]),
        try
            code:ensure_modules_loaded(lists:append([Modules || {_, _, Modules} <- Apps]))
        after
            code:set_path(Path)
        end;
    false ->
        ok
end.
"""
