"""params.yaml as frozen, validated models: values with bounds, units and descriptions, and no calculation.

Read in this order:

- `section`: `ParamsSection`, the base of all sections, and the description of parameters that `pesfit params` prints.
- `preparation`: sections of stages 01 to 05, `sources`, `download`, `convert`, `parameterize`, `cluster` and `split`.
- `fit_smirnoff`: section of stage 06, with the gradient fit.
- `train_learned`: section of stage 07.
- `evaluation`: sections `rollout` and `analyse` of stages 08 and 09.
- `load`: `load_params`, which lays the chosen profile over the sections and explains everything that is wrong in one message.
"""
